"""What a run is, as args.json and its checkpoint record it: options, machine, labels, versions."""

import argparse
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from utils.labels import Labels, labels_sha256
from utils.options.own_images import OWN_IMAGES, defaults_by_count
from utils.options.training import training_parser

# torch is imported where it is needed: the summary does without it.
PACKAGES = ("torchvision", "numpy", "scikit-learn")
NOT_PART_OF_A_RUN = {  # options that may differ between two calls of the same run
    *("data_dir", "results_dir", "device", "compile", "num_workers", "print_freq"),
    *("checkpoint_freq", "restart", "quiet", "no_plots", "tensorboard", "measure_steps", "debug"),
    *("run_dir", "columns"),  # of a manifest the labels count, whatever their heading
    "keep_checkpoint",  # of earlier versions
}
KNOWN_BY_CONTENT = {"images", "manifest"}  # own ones may have been moved


@dataclass
class Description:
    """A run's options with their defaults for such a run, and what it is made with."""

    options: dict[str, Any]
    defaults: dict[str, Any]
    machine: Any = None  # see utils/devices.py, which imports torch; None: not known
    labels_sha256: str | None = None  # of the given labels and of own images; None: not known
    class_counts: dict[str, int] | None = None  # class name -> given labels

    @classmethod
    def of(
        cls,
        args: argparse.Namespace,
        machine: Any = None,
        labels: Labels | None = None,
        images: bytes = b"",
    ) -> "Description":
        """Describe the run of these options; `images`: what tells own ones from others."""
        defaults = training_parser().defaults_of(args.dataset, args.net, args.method)
        if labels and args.dataset == OWN_IMAGES:  # their number decides some
            defaults |= defaults_by_count(args.method, len(labels.given) - labels.judged)
        digest = labels and labels_sha256(labels.given.numpy(), images)
        counts = labels and labels.class_counts()
        return cls(_plain(vars(args)), _plain(defaults), machine, digest, counts)

    def record(self) -> dict[str, Any]:
        """The content of args.json."""
        import torch

        changed = {
            name: value
            for name, value in self.options.items()
            if name in self.defaults and value != self.defaults[name]
        }
        return {
            "options": self.options,
            "non_default_options": changed,
            "versions": made_with(),
            "device": str(self.machine.device),
            "precision": self.machine.precision,
            "compiled": self.machine.compiled,
            "threads": torch.get_num_threads(),
            "commit": _commit(),
            "labels_sha256": self.labels_sha256,
            "class_counts": self.class_counts,
        }

    def differs_from(self, record: Mapping[str, Any]) -> list[str]:
        """What is another in a run's args.json, in words.

        An option that the record lacks, as that of an earlier version, had its default; a recorded
        option that is unknown today counts where it was not at its default. Own images may have
        been moved: their contents count.
        """
        there = record["options"]
        chosen = record.get("non_default_options", there)
        labels = record.get("labels_sha256")
        known = KNOWN_BY_CONTENT if labels and self.labels_sha256 else set()
        names = (self.options.keys() | chosen.keys()) - NOT_PART_OF_A_RUN - known
        values = {
            name: (there.get(name, self.defaults.get(name)), self.options.get(name))
            for name in sorted(names)
        }
        words = [
            f"--{name} {was} there, {now} here" for name, (was, now) in values.items() if was != now
        ]
        pairs = (labels, self.labels_sha256), (record.get("class_counts"), self.class_counts)
        if any(was and here not in (None, was) for was, here in pairs):
            own = self.options.get("dataset") == OWN_IMAGES
            words.append("other images or labels" if own else "other labels in --noise_path")
        return words

    def identity(self) -> dict[str, Any]:
        """What must be the same where a checkpoint is resumed, by name."""
        return {
            **_named(self.options),
            "labels_sha256": self.labels_sha256,
            "precision": self.machine.precision,
            "device": self.machine.device.type,
        }

    def assumed(self) -> dict[str, Any]:
        """What a checkpoint that lacks some of its identity had: the options' defaults."""
        return _named(self.defaults)


def made_with() -> dict[str, str]:
    """Versions of Python and of the packages that decide the last bits of a result."""
    import torch

    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return versions | {package: version(package) for package in PACKAGES}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    left_out = NOT_PART_OF_A_RUN | KNOWN_BY_CONTENT
    return {f"--{name}": v for name, v in options.items() if name not in left_out}


def _commit() -> str | None:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # not a git checkout
