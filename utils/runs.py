"""Run folders: their names, what they say of their run, and when a run may begin in one."""

import argparse
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.files import (
    read_json,
    write_array,
    write_arrays,
    write_json,
    write_text,
    write_whole,
)
from utils.lock import NAME as LOCK
from utils.lock import locked
from utils.suspects import SUSPECTS_SHOWN, suspect_order, suspects_csv

# torch is imported where it is needed: the summary does without it.
PACKAGES = ("torchvision", "numpy", "scikit-learn")
KEPT = (  # evidence of a run: small, and nothing of the images
    "args.json",
    "metrics.csv",
    "training.json",
    "timing.json",
    "learning.json",
    "detection.json",
)
PLACES = {"data_dir", "results_dir"}
NOT_PART_OF_A_RUN = {  # options that may differ between two calls of the same run
    "data_dir",
    "results_dir",
    "device",
    "compile",
    "num_workers",
    "print_freq",
    "checkpoint_freq",
    "keep_checkpoint",
    "restart",
    "quiet",
    "no_pictures",
    "tensorboard",
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
    options = _options(folder / "args.json")
    for name in names:
        if options.get(name) != getattr(args, name):
            raise ValueError(
                f"{folder} is a run with --{name} {options.get(name)}, not {getattr(args, name)}"
            )
    return options


def _options(path: Path) -> dict[str, Any]:
    options = read_json(path).get("options", {})
    if not isinstance(options, dict):
        raise ValueError(f"{path}: does not name a run; remove that folder")
    return options


def keep_run(folder: Path, target: Path) -> None:
    """Copy the small files of a finished run, without the places on the machine it was made on.

    Raises ValueError or OSError naming the file.
    """
    make_folder(target)
    for name in KEPT:
        if not (folder / name).exists():
            continue
        if name != "args.json":
            write_whole(target / name, (folder / name).read_bytes())
            continue
        record = read_json(folder / name)
        options = {k: v for k, v in _options(folder / name).items() if k not in PLACES}
        if options.get("noise_path"):
            options["noise_path"] = Path(options["noise_path"]).name
        write_json(target / name, record | {"options": options})


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
        write_text(self.folder / "suspects.csv", table)
        write_array(self.folder / "detection.npy", detection)


def describe(
    args: argparse.Namespace, device: Any, precision: str, compiled: bool
) -> dict[str, Any]:
    """All options, and what the run is made with: versions, device, precision, commit."""
    import torch

    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
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


def finished_run(folder: Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished run; None where there is none, or one to begin or to go on with.

    Raises ValueError, naming each option that differs, where the folder holds another run.
    """
    args_path, record_path = folder / "args.json", folder / "training.json"
    if not args_path.exists():
        foreign = [
            path.name for path in folder.glob("*") if path.suffix in (".tar", ".npy", ".npz", ".pt")
        ]
        if foreign:
            raise ValueError(
                f"{folder} holds {', '.join(sorted(foreign))} of unknown origin (no args.json); "
                "move that folder away, choose another --results_dir, or let --restart move it"
            )
        return None
    there, here = _options(args_path), description["options"]
    differing = [
        f"--{name} {there.get(name)} there, {here.get(name)} here"
        for name in sorted((there.keys() | here.keys()) - NOT_PART_OF_A_RUN)
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run with other options ({'; '.join(differing)}); give the same, "
            "choose another --results_dir, or begin anew with --restart, which moves it aside"
        )
    return read_json(record_path) if record_path.exists() else None


def identity(description: dict[str, Any], device_type: str) -> dict[str, Any]:
    """What must be the same where a run is gone on with: its options, device and precision."""
    options = description["options"].items()
    named = {f"--{name}": value for name, value in options if name not in NOT_PART_OF_A_RUN}
    return {**named, "device": device_type, "precision": description["precision"]}


def make_folder(folder: Path) -> None:
    """Make a run folder; raises OSError, naming it and the cause."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{folder}: cannot be made ({error.strerror}); choose another --results_dir"
        ) from error


def move_aside(folder: Path) -> Path | None:
    """Move a run folder that nobody trains in to `aside/` beside it; where it is now."""
    if not folder.exists():
        return None
    with locked(folder):
        aside = folder.parent / "aside"
        number = 1
        while (place := aside / f"{folder.name}_{number}").exists():
            number += 1
        make_folder(aside)
        folder.rename(place)
        (place / LOCK).unlink()
    return place


def peak_memory_gib(device: Any) -> float:
    """Largest memory in use so far, in GiB: the device's on CUDA, else this process's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
