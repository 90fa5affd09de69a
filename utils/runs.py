"""Run folders: their names, and files that are written whole or not at all."""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import zlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from utils.suspects import SUSPECTS_SHOWN, suspect_order, suspects_csv

# torch is imported where it is needed: the summary does without it.
PACKAGES = ("torchvision", "numpy", "scikit-learn")
NOT_PART_OF_A_RUN = {  # options that may differ between two calls of the same run
    "data_dir",
    "results_dir",
    "device",
    "compile",
    "num_workers",
    "print_freq",
    "measure_steps",
    "debug",
}


def run_folder(args: argparse.Namespace) -> Path:
    """`--run_dir` where given, else results/{dataset}_{noise_type}_seed_{seed}, `_ce` for ce."""
    if getattr(args, "run_dir", None):
        return args.run_dir
    suffix = "" if args.method == "bkd" else f"_{args.method}"
    return args.results_dir / f"{args.dataset}_{args.noise_type}_seed_{args.seed}{suffix}"


def read_options(folder: Path, args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that a run folder records; none where it has no args.json.

    Raises FileNotFoundError when there is no such folder, ValueError when one of the named options
    is another than in `args`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder; train it first, or give --run_dir")
    if not (folder / "args.json").exists():
        return {}
    options = read_json(folder / "args.json").get("options", {})
    for name in names:
        if options.get(name) != getattr(args, name):
            raise ValueError(
                f"{folder} is a run with --{name} {options.get(name)}, not {getattr(args, name)}"
            )
    return options


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that has its name only once it is whole and on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as indented JSON."""
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a record; raises ValueError naming the file if it is none."""
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); remove it or its run folder") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: holds no JSON object; remove it or its run folder")
    return record


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays as .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(path, buffer.getvalue())


def read_array(path: Path) -> np.ndarray:
    """Read one array from .npy, never unpickling; raises OSError or ValueError naming the file."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file; train the run first") from error
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: not a whole .npy file of plain numbers") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: is an .npz archive; an .npy file is needed")
    return array


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read named arrays from .npz, never unpickling; raises ValueError naming the file."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, EOFError, BadZipFile, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole .npz file of plain numbers") from error


class DetectionWriter(NamedTuple):
    """Writes a run's detection result: predictions.npz, suspects.csv, detection.npy behind them."""

    folder: Path
    scored: np.ndarray  # positions in the full set of the scored images
    labels: np.ndarray  # [scored images], given
    clean_labels: np.ndarray  # [scored images]
    class_names: list[str]
    images: np.ndarray  # bytes of the full set, [N, channels, height, width]

    def write(self, flagged: np.ndarray, **arrays: Any) -> None:
        """`flagged` [scored images]: label judged wrong; images not scored are not flagged.

        `arrays`: at least agreement and prediction, [scored images]. The pictures of the most
        suspect images go into predictions.npz too, so that the folder explains itself.
        """
        detection = np.zeros(len(self.images), dtype=bool)
        detection[self.scored] = flagged
        arrays |= {"index": self.scored, "label": self.labels, "true_label": self.clean_labels}
        suspects = self.scored[suspect_order(arrays["agreement"])[:SUSPECTS_SHOWN]]
        write_arrays(
            self.folder / "predictions.npz",
            class_names=np.array(self.class_names),
            suspect_index=suspects,
            suspect_images=self.images[suspects].transpose(0, 2, 3, 1),
            **arrays,
        )
        table = suspects_csv(arrays, flagged, self.class_names)
        write_whole(self.folder / "suspects.csv", table.encode())
        write_array(self.folder / "detection.npy", detection)


def save_network(path: Path, state_dict: dict[str, Any], epoch: int) -> None:
    """Write a network in the authors' format, `{"state_dict", "epoch"}`."""
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": state_dict, "epoch": epoch}, buffer)
    write_whole(path, buffer.getvalue())


def load_network(path: Path) -> dict[str, Any]:
    """Read a network in the authors' format: `{"state_dict", "epoch"}`, on the CPU.

    Raises FileNotFoundError or ValueError, naming the file.
    """
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such network; train it first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets a foreign file with errors of every kind
        raise ValueError(f"{path}: not a readable checkpoint; train again") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(f"{path}: has no 'state_dict'; not a network of this project's format")
    return content


def describe(
    args: argparse.Namespace, device: Any, precision: str, compiled: bool
) -> dict[str, Any]:
    """All options, and what the run is made with: versions, device, precision, commit."""
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "versions": versions | {package: version(package) for package in PACKAGES},
        "device": str(device),
        "precision": precision,
        "compiled": compiled,
        "commit": _commit(),
    }


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # not a git checkout


def begin_run(folder: Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """Make the run folder and write args.json; a finished run of the same options: its record.

    Raises ValueError, naming each option that differs, where the folder holds another run.
    """
    args_path, record_path = folder / "args.json", folder / "training.json"
    if not args_path.exists():
        foreign = [
            path.name for path in folder.glob("*") if path.suffix in (".tar", ".npy", ".npz")
        ]
        if foreign:
            raise ValueError(
                f"{folder} holds {', '.join(sorted(foreign))} of unknown origin (no args.json); "
                "move that folder away or choose another --results_dir"
            )
    else:
        there, here = read_json(args_path).get("options", {}), description["options"]
        differing = [
            f"--{name} {there.get(name)} there, {here.get(name)} here"
            for name in sorted((there.keys() | here.keys()) - NOT_PART_OF_A_RUN)
            if there.get(name) != here.get(name)
        ]
        if differing:
            raise ValueError(
                f"{folder} holds a run with other options ({'; '.join(differing)}); "
                "give the same, choose another --results_dir or move that folder away"
            )
        if record_path.exists():
            return read_json(record_path)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(args_path, description)
    return None


def peak_memory_gib(device: Any) -> float:
    """Largest memory in use so far, in GiB: the device's on CUDA, else this process's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
