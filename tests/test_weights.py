"""Saved networks: read back exactly, and refused where they are damaged or of another kind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.compact_net import CompactNet
from models.preact_resnet import PreActResNet
from models.teacher_student import TeacherStudent, build_baseline, build_pair
from models.weights import load_network, load_pair, network_from_state, save_networks
from tests.test_compact_net import expected_shapes as compact_shapes
from tests.test_networks import expected_shapes
from utils.run_folder.folder import RunFolder

CLASSES, WIDTH = 7, 2
KINDS = {"preact18": PreActResNet, "compact": CompactNet}


def new_pair(net: str, digits: bool = False) -> TeacherStudent:
    """With a whitening where there is one."""
    pair = build_pair(CLASSES, WIDTH, net=net, digits=digits)
    for network in (pair.teacher, pair.student) if net == "compact" else ():
        network.whiten(torch.randn(9, 1, 8, 8) if digits else torch.randn(9, 3, 32, 32))
    return pair


@pytest.fixture(params=KINDS)
def net(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path: Path, net: str) -> RunFolder:
    torch.manual_seed(0)
    folder = RunFolder(tmp_path)
    save_networks(new_pair(net), folder, 29)
    save_networks(new_pair(net), folder, 11, best=True)
    return folder


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refused(path: Path, message: str, load: Callable[[], object] | None = None) -> None:
    """Loading it, as one network if not said otherwise, ends in one line that names the file."""
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load() if load else load_network(path, CLASSES, 3)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("digits", [False, True], ids=["cifar", "digits"])
def test_a_pair_is_read_back_exactly(tmp_path: Path, net: str, digits: bool):
    folder, channels = RunFolder(tmp_path), 1 if digits else 3
    last, best = new_pair(net, digits), new_pair(net, digits)
    save_networks(last, folder, 29)
    save_networks(best, folder, 11, best=True)
    names = {"teacher.pth.tar", "student.pth.tar"}
    assert {path.name for path in tmp_path.iterdir()} == names | {f"best_{name}" for name in names}
    for pair, epoch, is_best in ((last, 29, False), (best, 11, True)):
        sizes = {"num_classes": CLASSES, "in_channels": channels, "width": WIDTH}
        loaded, of_epoch = load_pair(folder, **sizes, alone=False, best=is_best)
        assert of_epoch == epoch
        assert equal(loaded.state_dict(), pair.state_dict())
        for network, saved in ((loaded.teacher, pair.teacher), (loaded.student, pair.student)):
            assert type(network) is KINDS[net]
            trained = [each.requires_grad for each in network.parameters()]
            assert trained == [each.requires_grad for each in saved.parameters()]
    teacher, _ = load_pair(folder, CLASSES, channels, alone=True)
    assert teacher.trained_networks().keys() == {"teacher"}


def test_the_baseline_has_one_file(tmp_path: Path, net: str):
    baseline = build_baseline(CLASSES, WIDTH, net=net, digits=True)
    save_networks(baseline, RunFolder(tmp_path), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.pth.tar"]
    loaded, epoch = load_pair(RunFolder(tmp_path), CLASSES, 1, alone=True)
    assert epoch == 3 and equal(loaded.state_dict(), baseline.state_dict())


def test_the_authors_networks_are_read():
    """Saved by DataParallel, by the names and shapes of their published checkpoints."""
    for net, shapes in {
        "preact18": expected_shapes(10, 64, blocks=2, channels=3),
        "compact": compact_shapes(10, 32, blocks=3, channels=3),
    }.items():
        state = {f"module.{key}": torch.rand(shape) for key, shape in shapes.items()}
        network = network_from_state(state)
        assert type(network) is KINDS[net]
        for key, values in network.state_dict().items():
            assert torch.equal(values, state[f"module.{key}"].to(values.dtype)), key


def test_a_flipped_bit_anywhere_changes_no_weight(folder: RunFolder):
    path = folder.network("student")
    whole, expected = path.read_bytes(), torch.load(path, weights_only=True)["state_dict"]
    for place in range(0, len(whole), len(whole) // 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        try:
            network, _ = load_network(path, CLASSES, 3)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert equal(network.state_dict(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 10}, "has classes 7, the data set and the run have 10"),
        ({"in_channels": 1}, "has channels 3, the data set and the run have 1"),
        ({"width": 16}, "has --width 2, the data set and the run have 16"),
    ],
)
def test_networks_of_another_size_are_refused(folder: RunFolder, arguments: dict, message: str):
    sizes = {"num_classes": CLASSES, "in_channels": 3, "alone": False} | arguments
    refused(folder.network("teacher"), message, partial(load_pair, folder, **sizes))


@pytest.mark.parametrize("hint", ["train it first", "give --restart"])
def test_missing_networks(folder: RunFolder, hint: str):
    path = folder.network("student")
    path.unlink()
    more = {} if hint == "train it first" else {"missing_hint": hint}
    load = partial(load_pair, folder, CLASSES, 3, alone=False, **more)
    refused(path, f"no such network; {hint}", load)


def broken(state: dict[str, Tensor], way: str, key: str) -> dict[str, Any]:
    if way == "missing":
        return {other: values for other, values in state.items() if other != key}
    if way == "too many":
        return state | {f"{key}.more": torch.zeros(2)}
    if way in ("nan", "inf"):
        place = torch.arange(state[key].numel()).view_as(state[key])
        return state | {key: torch.where(place == 1, float(way), state[key])}
    return state | {key: torch.zeros(*state[key].shape, 2) if way == "misshapen" else way}


@pytest.mark.parametrize("way", ["missing", "too many", "misshapen", "text", "nan", "inf"])
def test_broken_states_are_refused(tmp_path: Path, net: str, way: str):
    whole = new_pair(net, digits=True).teacher.state_dict()
    path = tmp_path / "teacher.pth.tar"
    for key in whole:
        if key.endswith("num_batches_tracked"):
            continue  # torch reads states without it, which are older than this number
        torch.save({"state_dict": broken(whole, way, key), "epoch": 1}, path)
        reason = rf"\({key} has numbers that are not finite" if way in ("nan", "inf") else ""
        refused(path, f"not the weights of a .*{reason}")


@pytest.mark.parametrize(
    "state",
    [
        *(None, [1], {}, {"x": 3}, {"layer1.0.conv1.weight": torch.ones(3)}),
        {"conv1.weight": torch.zeros(0, 0), "linear.weight": ""},
        {"whitening.weight": torch.zeros(2, 0), "blocks.0.conv1.weight": "", "head.weight": "x"},
        {"whitening.weight": torch.ones(8, 1, 2, 2)},
        {"blocks.0.conv1.weight": torch.ones(4, 8, 3, 3), "head.weight": torch.ones(7, 4)},
    ],
    ids=str,
)
def test_files_of_another_kind_are_refused(tmp_path: Path, state: object):
    path = tmp_path / "teacher.pth.tar"
    torch.save({"state_dict": state}, path)
    refused(path, "'state_dict'|not the weights of a ")
    path.write_bytes(b"<!DOCTYPE html>")
    refused(path, r"readable network \(Unpick.* failed\); .*--restart")
