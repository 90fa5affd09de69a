"""A run folder: the names of its files, and what it says of its run."""

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.console import say
from utils.files import read_json
from utils.lock import HOLDER, locked
from utils.methods import METHODS
from utils.options.own_images import OWN_IMAGES
from utils.run_folder.description import KNOWN_BY_CONTENT, Description

REPLACED = "replaced"  # beside the run folders: those that --restart has moved away
OTHERS_FILES = (".tar", ".npy", ".npz", ".pt")


class RunFolder:
    """Where each file of a run is. The folder need not be there yet."""

    def __init__(self, path: Path):
        self.path = path
        self.args = path / "args.json"
        self.metrics = path / "metrics.csv"
        self.training = path / "training.json"
        self.timing = path / "timing.json"
        self.learning = path / "learning.json"
        self.detection_metrics = path / "detection.json"
        self.detection = path / "detection.npy"
        self.predictions = path / "predictions.npz"
        self.suspects = path / "suspects.csv"
        self.review = path / "review.html"
        self.image_warnings = path / "image_warnings.txt"
        self.checkpoint = path / "checkpoint.pt"
        self.tensorboard = path / "tensorboard"

    @classmethod
    def of(cls, args: argparse.Namespace) -> "RunFolder":
        """`--run_dir` where given, else {dataset}_{noise_type}_seed_{seed}.

        Of own images with the name of their manifest or folder for the noise type. Followed by
        `_{net}` and `_{method}` where they are not preact18 and bkd.
        """
        if getattr(args, "run_dir", None):
            return cls(args.run_dir)
        has_net = METHODS[args.method].has_networks and args.net != "preact18"
        net = f"_{args.net}" if has_net else ""
        method = "" if args.method == "bkd" else f"_{args.method}"
        labels = args.noise_type
        if args.dataset == OWN_IMAGES:
            name = args.manifest.stem if args.manifest else args.images.name
            labels = re.sub(r"[^\w.-]", "_", name)
        name = f"{args.dataset}_{labels}_seed_{args.seed}{net}{method}"
        return cls(args.results_dir / name)

    @property
    def manifest(self) -> Path:
        """The manifest of own images, in the form in which it was read."""
        lines = self.manifest_as(json_lines=True)
        return lines if lines.exists() else self.manifest_as(json_lines=False)

    def manifest_as(self, *, json_lines: bool) -> Path:
        """Where the manifest is in that form."""
        return self.path / f"manifest.{'jsonl' if json_lines else 'csv'}"

    def __str__(self) -> str:
        return str(self.path)

    def network(self, name: str, *, best: bool = False) -> Path:
        """The "teacher" or "student" of the last epoch, or of the best noisy validation."""
        return self.path / f"{'best_' if best else ''}{name}.pth.tar"

    def fold(self, number: int) -> "RunFolder":
        """The folder of the run that judges another fold of the images."""
        return RunFolder(self.path / f"fold_{number}")

    def log(self, stage: str) -> Path:
        """What "training", "learning" or "detection" said."""
        return self.path / f"{stage}.log"

    def make(self) -> None:
        """Make the folder; raises OSError, naming it and the cause."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{self}: cannot be made ({error.strerror}); choose another --results_dir"
            ) from error

    def options(self) -> dict[str, Any]:
        """The options that args.json records; raises OSError or ValueError naming it."""
        return self.described()["options"]

    def described(self) -> dict[str, Any]:
        """What args.json records; raises OSError or ValueError naming it."""
        record = read_json(self.args)
        record.setdefault("options", {})
        counts = record.get("class_counts") or {}  # null where not known
        parts = record["options"], record.get("non_default_options", {}), counts
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError(f"{self.args}: does not name a run; remove that folder")
        return record

    def options_like(self, args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
        """The options that args.json records; none where there is no such file.

        Own images that `args` names are taken from there: they may have been moved.
        Raises FileNotFoundError when there is no such folder, ValueError when one of the named
        options is another than in `args`.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"{self}: no such run folder; train it first, or give --run_dir"
            )
        if not self.args.exists():
            return {}
        options = self.options()
        for name in names:
            if options.get(name) != getattr(args, name):
                raise ValueError(
                    f"{self} is a run with --{name} {options.get(name)}, not {getattr(args, name)}"
                )
        moved = {name: getattr(args, name, None) for name in KNOWN_BY_CONTENT}
        options |= moved if any(moved.values()) else {}
        columns = getattr(args, "columns", None)
        return options | ({"columns": columns} if columns else {})

    def check_finished(self) -> None:
        """Raise ValueError where a run is under way or was interrupted."""
        if self.args.exists() and not self.training.exists():
            raise ValueError(f"{self}: the run is not finished; repeat its training command")

    def check_data(self, class_names: Sequence[str], sha256: str | None = None) -> None:
        """Raise ValueError where the run was trained on other classes, labels or own images.

        `sha256`: see `utils.labels.labels_sha256`; None: classes alone are compared. Runs of
        earlier versions record no classes.
        """
        record = self.described() if self.args.exists() else {}
        counts, trained_on = record.get("class_counts"), record.get("labels_sha256")
        hint = "name the data it was trained on, or train again with --restart"
        if counts and [*counts] != [*class_names]:
            there = ", ".join(set(counts) ^ set(class_names)) or "in another order"
            raise ValueError(f"{self}: the classes are not those of the run ({there}); {hint}")
        if sha256 and trained_on and sha256 != trained_on:
            raise ValueError(f"{self}: labels or images are not those of the run; {hint}")

    def check_split(self, predictions: Any) -> None:
        """Raise ValueError where training.json tells of another split than predictions.npz."""
        if not self.training.exists() or predictions.split_group is None:
            return
        there, own = read_json(self.training), predictions.split_summary()
        if any(there.get(key, own[key]) != own[key] for key in ("split_epoch", "group_sizes")):
            raise ValueError(f"{self.predictions}: not of this run, as {self.training.name} says")

    def finished_run(self, description: Description) -> dict[str, Any] | None:
        """The record of a finished run; None where there is none, or one to start or to resume.

        `description`: of the run that shall be there. Raises ValueError, naming each option that
        differs, where the folder holds another run.
        """
        if not self.args.exists():
            foreign = [p.name for p in self.path.glob("*") if p.suffix in OTHERS_FILES]
            if foreign:
                raise ValueError(
                    f"{self} holds {', '.join(sorted(foreign))} of unknown origin (no args.json); "
                    "move that folder away, choose another --results_dir, or let --restart move it"
                )
            return None
        if differing := description.differs_from(self.described()):
            raise ValueError(
                f"{self} holds a run with other options ({'; '.join(differing)}); give the same, "
                "choose another --results_dir, or --restart, which moves it to replaced/"
            )
        return read_json(self.training) if self.training.exists() else None

    def progress(
        self, args: argparse.Namespace, description: Description
    ) -> tuple[int | None, int] | None:
        """CPU threads that the run or its folds began with, None if not known, and epochs done.

        None for a finished run; raises ValueError as `finished_run`.
        """
        if args.restart:
            return None, 0
        if self.finished_run(description):
            return None
        runs = [RunFolder(path) for path in (*sorted(self.path.glob("fold_*")), self.path)]
        threads = [read_json(each.args).get("threads") for each in runs if each.args.exists()]
        logs = [each.metrics.read_bytes() for each in runs if each.metrics.exists()]
        return next(filter(None, threads), None), sum(log.count(b"\n") - 1 for log in logs)

    def make_room(self, args: argparse.Namespace) -> None:
        """Replace the folder for `--restart`, once, before anything else is written into it."""
        if args.restart and (replaced := self.replace()):
            say(f"{self}: the run that was here is now {replaced}")
        args.restart = False

    def replace(self) -> Path | None:
        """Move the folder, in which nobody trains, to `replaced/` beside it; where it is now."""
        if not self.path.exists():
            return None
        with locked(self.path):
            replaced = RunFolder(self.path.parent / REPLACED)
            number = 1
            while (place := replaced.path / f"{self.path.name}_{number}").exists():
                number += 1
            replaced.make()
            self.path.rename(place)
            (place / HOLDER).unlink()
        return place
