"""CIFAR-N, the human labels of Wei et al. (ICLR 2022): fetch, verify, read safely, join."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data.download import digest, fetch, naming_folder, one_at_a_time
from utils.files import read_array, read_content, read_tensors
from utils.label_sets import LABEL_SETS

URL = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data/"

PLAIN = ""  # in the place of a key
HINT = (
    "check --noise_path; a label file is a dictionary of integer numpy arrays (torch.save), or a "
    "tensor, an .npy or a .json list with one whole number for each training image"
)


class LabelFile(NamedTuple):
    """A published label file."""

    name: str
    sha256: tuple[str, ...]  # those accepted; the first is that of the file at URL


LABEL_FILES = {
    "cifar10": LabelFile(
        "CIFAR-10_human.pt", ("873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",)
    ),
    "cifar100": LabelFile(
        "CIFAR-100_human.pt",
        (
            "bd2d80409754d420292d622e15e25248ba21e37d27429efac49c8da723f44394",
            "3ca5e261fcff3a50f5c19044daa342e6b5392eb0ef70c5b9761766f5f9c68192",  # older coarse ones
        ),
    ),
}


def fetch_label_file(dataset: str, data_dir: Path) -> Path:
    """Path of the published label file in `data_dir`, downloaded where missing.

    Raises OSError where it cannot be downloaded or the folder cannot be used, ValueError when the
    SHA-256 of the file there is unknown.
    """
    file = LABEL_FILES[dataset]
    path = data_dir / file.name
    with naming_folder(data_dir):
        if not path.exists():
            with one_at_a_time(data_dir):
                if not path.exists():  # another process may have fetched it meanwhile
                    fetch(URL + file.name, path, file.sha256[0])
        sha256 = digest(path)
    if sha256 not in file.sha256:
        raise ValueError(
            f"{path}: its SHA-256 {sha256} is not that of the published file "
            f"({file.sha256[0]}); remove it to download it again, or name your own file "
            "with --noise_path"
        )
    return path


def read_label_file(path: Path) -> dict[str, NDArray[np.integer]]:
    """The integer arrays in a label file by their keys; anything else in it is left out.

    A file without keys, a tensor, .npy or list, has its labels under PLAIN. Pickles of torch.save,
    as the published files, are read with `weights_only=True` and numpy's array types allowed, so
    that a foreign file can run no code.
    Raises FileNotFoundError, or ValueError for anything but such a file.
    """
    if path.suffix.lower() == ".npy":
        content = read_array(path, HINT)
    elif path.suffix.lower() == ".json":
        content = _read_list(path)
    else:
        kinds = (dict, list, np.ndarray, torch.Tensor)
        content = read_tensors(path, "label file", HINT, _array_types(), kinds)
    arrays = {}
    for key, value in (content if isinstance(content, dict) else {PLAIN: content}).items():
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):  # ragged lists, tensors unknown to numpy
            continue
        truths = isinstance(value, list) and any(isinstance(each, bool) for each in value)
        if array.dtype.kind in "iu" and not truths:
            arrays[key] = array
    return arrays


def _read_list(path: Path) -> Any:
    """What a JSON file holds."""
    content = read_content(path, "label file", HINT)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable label file; {HINT}") from error


def _array_types() -> list[Any]:
    """What a pickle of numpy arrays is rebuilt from."""
    rebuild = np.empty(0).__reduce__()[0]
    number_types = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "d"}
    return [
        (rebuild, "numpy.core.multiarray._reconstruct"),  # its name in files written with numpy 1
        (rebuild, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *number_types,
    ]


def noisy_labels(
    path: Path, dataset: str, noise_type: str, clean_labels: NDArray[np.integer]
) -> NDArray[np.int64]:
    """The given labels [N] of one label set, checked against the data set's own classes [N].

    A file without keys holds the given labels alone. Raises ValueError when the key is missing,
    lengths differ, a label is out of range, or the file has clean labels, not the data set's.
    """
    content = read_label_file(path)
    key = PLAIN if not content or PLAIN in content else LABEL_SETS[dataset].keys[noise_type]
    labels = {name: content[name] for name in ("clean_label", key) if name in content}
    if key not in labels:
        named = f" named {key!r} for {noise_type!r}" if content else f"; {HINT}"
        raise ValueError(f"{path}: has no integer labels{named}")
    for name, array in labels.items():
        if array.shape != clean_labels.shape:
            raise ValueError(
                f"{path}: {name or 'the array'!r} has shape {array.shape}, "
                f"{dataset} needs one label for each of {len(clean_labels)} images"
            )
    if not np.array_equal(labels.get("clean_label", clean_labels), clean_labels):
        raise ValueError(f"{path}: its clean labels are not those of {dataset}; wrong file?")
    given = labels[key]
    if given.min() < 0 or given.max() > clean_labels.max():
        raise ValueError(
            f"{path}: {key or 'the array'!r} has labels from {given.min()} to {given.max()}, "
            f"{dataset} has classes 0 to {clean_labels.max()}"
        )
    return given.astype(np.int64)
