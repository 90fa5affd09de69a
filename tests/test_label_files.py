"""Label files: the published ones, own ones, damaged and malicious ones."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data import cifar_n
from data.cifar_n import fetch_label_file, noisy_labels, read_label_file
from data.datasets import given_labels, load_images
from tests.conftest import Hostile

DATA = Path.home() / "data"
CLEAN = np.arange(20) % 10
AGGRE = np.where(np.arange(20) < 4, 3, CLEAN)


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def label_file(folder: Path, **changes: object) -> Path:
    """A made-up file like the published ones, arrays and lists; None leaves a key out."""
    content = {"clean_label": CLEAN, "aggre_label": AGGRE, "worse_label": AGGRE[::-1].tolist()}
    content |= {"remark": "made up"} | changes
    path = folder / "labels.pt"
    path.write_bytes(saved({key: value for key, value in content.items() if value is not None}))
    return path


def refused(path: Path, *parts: object, read: Callable = read_label_file) -> None:
    with pytest.raises((ValueError, OSError)) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message and all(str(part) in message for part in (path, *parts))


def aggre_labels(path: Path) -> np.ndarray:
    return noisy_labels(path, "cifar10", "aggre", CLEAN)


def test_reading_labels(tmp_path: Path):
    path = label_file(tmp_path, clean_label=CLEAN.tolist())
    assert {*read_label_file(path)} == {"clean_label", "aggre_label", "worse_label"}
    for noise_type, expected in (("clean", CLEAN), ("aggre", AGGRE), ("worst", AGGRE[::-1])):
        labels = noisy_labels(path, "cifar10", noise_type, CLEAN)
        assert np.array_equal(labels, expected)
        assert labels.dtype == np.int64
    given = given_labels("cifar10", "aggre", torch.from_numpy(CLEAN), tmp_path, path, 0)
    assert np.array_equal(given, AGGRE)
    for kind in (np.int32, np.uint8, ">i8"):
        path = label_file(tmp_path, aggre_label=AGGRE.astype(kind))
        assert np.array_equal(aggre_labels(path), AGGRE), kind


def test_reading_labels_written_by_numpy_1(tmp_path: Path):
    path = tmp_path / "old.pt"
    content = saved({"clean_label": CLEAN, "aggre_label": AGGRE}, zipped=False)
    content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"cnumpy.core" in content
    path.write_bytes(content)
    assert np.array_equal(aggre_labels(path), AGGRE)


def written(path: Path, content: object) -> Path:
    """Labels without keys, as the ending says; bytes as they are."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_bytes(json.dumps(content).encode() if ".json" in path.name else saved(content))
    return path


def test_noisy_labels_alone_are_enough(tmp_path: Path):
    alone = label_file(tmp_path, clean_label=None)
    assert np.array_equal(noisy_labels(alone, "cifar10", "worst", CLEAN), AGGRE[::-1])
    with pytest.raises(ValueError, match="no integer labels named 'clean_label'"):
        noisy_labels(alone, "cifar10", "clean", CLEAN)
    for name, content in {
        "tensor.pt": torch.from_numpy(AGGRE),
        "array.pt": AGGRE,
        "list.pt": AGGRE.tolist(),
        "array.npy": AGGRE.astype(np.uint8),
        "list.json": AGGRE.tolist(),
        "keys.json": {"aggre_label": AGGRE.tolist()},
    }.items():
        assert np.array_equal(aggre_labels(written(tmp_path / name, content)), AGGRE), name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", AGGRE[:-1], "'the array' has shape (19,)"),
        ("a.json", (AGGRE - 1).tolist(), "'the array' has labels from -1"),
        ("a.json", ["cat"] * 20, "has no integer labels; check --noise_path"),
        ("a.json", 3, "'the array' has shape ()"),
        ("a.pt", torch.ones(20), "has no integer labels; check --noise_path"),
        ("a.pt", "aggre", "not a label file"),
        ("a.pt", [1, 2, 3], "'the array' has shape (3,)"),
        ("a.pt", b"", ""),
        ("a.pt", b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>", ""),
        ("a.pt", b"PK\x03\x04 and no archive", ""),
        ("a.pt", pickle.dumps({"clean_label": CLEAN, "aggre_label": AGGRE}), ""),
    ],
)
def test_wrong_plain_labels_are_refused(tmp_path: Path, name: str, content: object, message: str):
    refused(written(tmp_path / name, content), message, read=aggre_labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggre_label": None}, "aggre_label"),
        ({"aggre_label": AGGRE[:-1]}, "(19,)"),
        ({"aggre_label": AGGRE[:, None]}, "(20, 1)"),
        ({"aggre_label": AGGRE - 1}, "-1"),
        ({"aggre_label": AGGRE + 1}, "10"),
        ({"aggre_label": AGGRE.astype(float)}, "aggre_label"),
        ({"aggre_label": torch.ones(20, requires_grad=True)}, "aggre_label"),
        ({"aggre_label": torch.ones(20, dtype=torch.bfloat16)}, "aggre_label"),
        ({"aggre_label": (AGGRE + 0.5).tolist()}, "aggre_label"),
        ({"aggre_label": [[1, 2], [3]]}, "aggre_label"),
        ({"aggre_label": [True, *AGGRE[1:].tolist()]}, "aggre_label"),
        ({"clean_label": CLEAN[::-1].copy()}, "clean labels"),
        ({"clean_label": CLEAN[:-1]}, "(19,)"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, changes: dict, message: str):
    refused(label_file(tmp_path, **changes), message, read=aggre_labels)


def test_truncated_label_files_are_refused(tmp_path: Path):
    path = label_file(tmp_path)
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_flipped_bit_is_found(tmp_path: Path):
    path = label_file(tmp_path)
    whole = path.read_bytes()
    place = whole.index(AGGRE.tobytes())
    for byte in range(place, place + AGGRE.nbytes, 20):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1]) + whole[byte + 1 :])
        refused(path, "checksum")


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_files_run_no_code(tmp_path: Path, monkeypatch, zipped: bool):
    monkeypatch.chdir(tmp_path)
    path, trace = tmp_path / "labels.pt", tmp_path / "hostile"
    path.write_bytes(saved({"clean_label": CLEAN, "aggre_label": Hostile()}, zipped))
    torch.load(path, weights_only=False)
    trace.unlink()  # the payload works
    refused(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["none.pt", "none.npy", "none.json", ".", "x" * 300])
def test_missing_label_file(tmp_path: Path, name: str):
    refused(tmp_path / name)


def needs(*names: str) -> None:
    if missing := [name for name in names if not (DATA / name).is_file()]:
        pytest.skip(f"{DATA} has no {', '.join(missing)}")


@pytest.mark.parametrize(
    ("dataset", "noise_type", "noise"),
    [
        ("cifar10", "clean", 0),
        ("cifar10", "aggre", 0.09010),
        ("cifar10", "rand1", 0.17234),
        ("cifar10", "rand2", 0.18122),
        ("cifar10", "rand3", 0.17640),
        ("cifar10", "worst", 0.40208),
        ("cifar100", "clean100", 0),
        ("cifar100", "noisy100", 0.40200),
    ],
)
def test_published_noise(dataset: str, noise_type: str, noise: float):
    needs(cifar_n.LABEL_FILES[dataset].name)
    path = fetch_label_file(dataset, DATA)
    clean_labels = read_label_file(path)["clean_label"]
    labels = noisy_labels(path, dataset, noise_type, clean_labels)
    assert labels.shape == (50_000,)
    assert np.mean(labels != clean_labels) == pytest.approx(noise, abs=1e-9)


def test_published_cifar10():
    batches = [f"data_batch_{k}" for k in range(1, 6)]
    needs(*(f"cifar-10-batches-py/{name}" for name in (*batches, "test_batch", "batches.meta")))
    images = load_images("cifar10", DATA)
    assert images.train.images.shape == (50_000, 3, 32, 32)
    assert images.test.images.shape == (10_000, 3, 32, 32)
    assert images.train.images.dtype == torch.uint8
    assert images.train.clean_labels.bincount().tolist() == [5000] * 10
    assert images.test.clean_labels.bincount().tolist() == [1000] * 10
    assert (images.class_names[0], images.class_names[9]) == ("airplane", "truck")
    with (DATA / "cifar-10-batches-py/test_batch").open("rb") as file:
        content = pickle.load(file, encoding="latin1")  # its MD5 has been checked
    assert np.array_equal(images.test.images.flatten(1), content["data"])
    assert images.test.clean_labels.tolist() == content["labels"]
