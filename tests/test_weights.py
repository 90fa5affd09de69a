"""Saved networks: read back exactly, and refused where they are damaged or of another kind."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.compact_net import CompactNet
from models.preact_resnet import PreActResNet
from models.teacher_student import TeacherStudent, build_baseline, build_network, build_pair
from models.weights import load_network, load_pair, network_from_state, save_networks
from tests.test_networks import expected_shapes
from utils.run_folder.folder import RunFolder

CLASSES, WIDTH = 7, 2
KINDS = {"preact18": PreActResNet, "compact": CompactNet}
kinds = pytest.mark.parametrize("net", KINDS)


def new_pair(net: str, digits: bool = False) -> TeacherStudent:
    """With a whitening where there is one."""
    pair = build_pair(CLASSES, WIDTH, net=net, digits=digits)
    if net == "compact":
        for network in (pair.teacher, pair.student):
            network.whiten(torch.randn(9, 1, 8, 8) if digits else torch.randn(9, 3, 32, 32))
    return pair


@pytest.fixture(params=KINDS)
def net(request: pytest.FixtureRequest) -> str:
    """Each network's name."""
    return request.param


@pytest.fixture
def folder(tmp_path: Path, net: str) -> RunFolder:
    """The folder of a run with saved networks of the last and of the best epoch."""
    torch.manual_seed(0)
    folder = RunFolder(tmp_path)
    save_networks(new_pair(net), folder, 29)
    save_networks(new_pair(net), folder, 11, best=True)
    return folder


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


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
    """Those of full size, by the names and shapes of their published checkpoints."""
    shapes = expected_shapes(10, 64, blocks=2, channels=3)
    state = {f"module.{key}": torch.rand(shape) for key, shape in shapes.items()}
    network = network_from_state(state)
    assert isinstance(network, PreActResNet)
    for key, values in network.state_dict().items():
        assert torch.equal(values, state[f"module.{key}"].to(values.dtype)), key


def test_networks_saved_by_data_parallel(folder: RunFolder, net: str):
    path = folder.network("teacher")
    expected = content(path)
    network = build_network(CLASSES, WIDTH, net=net)
    network.load_state_dict(expected["state_dict"])
    state = nn.DataParallel(network).state_dict()
    assert all(key.startswith("module.") for key in state)
    torch.save({"state_dict": state, "epoch": 29}, path)
    loaded, _ = load_network(path, CLASSES, 3)
    assert type(loaded) is KINDS[net] and equal(loaded.state_dict(), expected["state_dict"])


def content_of(path: Path, record: str) -> range:
    """Where in the archive the content of that record is."""
    with zipfile.ZipFile(path) as archive:
        (info,) = (each for each in archive.infolist() if each.filename.endswith(record))
    header = path.read_bytes()[info.header_offset :][:30]
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = info.header_offset + 30 + names
    return range(start, start + info.file_size)


@pytest.mark.parametrize("record", ["data/0", "data.pkl"])
def test_a_flipped_bit_in_a_network_is_found(folder: RunFolder, record: str):
    path = folder.network("student")
    whole = path.read_bytes()
    places = content_of(path, record)
    for number, place in enumerate(places[:: len(places) // 50]):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << number % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum inside it does not match") as error:
            load_pair(folder, CLASSES, 3, alone=False)
        assert str(path) in str(error.value)


def test_a_flipped_bit_anywhere_changes_no_weight(folder: RunFolder):
    path = folder.network("student")
    whole, expected = path.read_bytes(), content(path)["state_dict"]
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
    with pytest.raises(ValueError, match=message) as error:
        load_pair(folder, **{"num_classes": CLASSES, "in_channels": 3, "alone": False} | arguments)
    assert str(folder.network("teacher")) in str(error.value)


def test_missing_networks(folder: RunFolder):
    folder.network("student").unlink()
    with pytest.raises(FileNotFoundError, match="no such network; train it first") as error:
        load_pair(folder, CLASSES, 3, alone=False)
    assert str(folder.network("student")) in str(error.value)
    with pytest.raises(FileNotFoundError, match="give --restart"):
        load_pair(folder, CLASSES, 3, alone=False, missing_hint="give --restart")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_networks_that_are_not_finite_are_refused(folder: RunFolder, net: str, number: float):
    for key in content(folder.network("teacher"))["state_dict"]:
        if key.endswith("num_batches_tracked"):
            continue
        path = folder.network("teacher")
        saved = content(path)
        saved["state_dict"][key].view(-1)[1] = number
        path = path.with_name(f"{key}.pth.tar")
        torch.save(saved, path)
        with pytest.raises(ValueError, match=f"{key} has numbers that are not finite") as error:
            load_network(path, CLASSES, 3)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def broken(state: dict[str, Tensor], way: str, key: str) -> dict[str, Any]:
    """A state dict that is wrong in one way, at one key."""
    if way == "missing":
        return {other: values for other, values in state.items() if other != key}
    if way == "too many":
        return state | {f"{key}.more": torch.zeros(2)}
    other = torch.zeros(*state[key].shape, 2) if way == "misshapen" else "values"
    return state | {key: other}


@pytest.mark.parametrize("way", ["missing", "too many", "misshapen", "text"])
def test_broken_states_are_refused(tmp_path: Path, net: str, way: str):
    """At each of their keys; one line names the file and what it should be."""
    whole = new_pair(net, digits=True).teacher.state_dict()
    path = tmp_path / "teacher.pth.tar"
    for key in whole:
        if key.endswith("num_batches_tracked"):
            continue  # torch reads states without it, which are older than this number
        torch.save({"state_dict": broken(whole, way, key), "epoch": 1}, path)
        with pytest.raises(ValueError, match="not the weights of a ") as error:
            load_network(path, CLASSES, 1)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [1],
        {},
        {"layer1.0.conv1.weight": torch.ones(3)},
        {"whitening.weight": torch.ones(8, 1, 2, 2)},
        {"blocks.0.conv1.weight": torch.ones(4, 8, 3, 3), "head.weight": torch.ones(7, 4)},
    ],
)
def test_files_of_another_kind_are_refused(folder: RunFolder, state: object):
    path = folder.network("teacher")
    torch.save({"state_dict": state}, path)
    with pytest.raises(
        ValueError, match=r"'state_dict'|not the weights of a (PreActResNet|CompactNet)"
    ) as error:
        load_network(path, CLASSES, 3)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(
        ValueError, match=r"readable network \(Unpick.* failed\); .*--restart"
    ) as error:
        load_network(path, CLASSES, 3)
    assert str(path) in str(error.value)
