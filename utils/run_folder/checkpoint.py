"""Everything that a run needs to be resumed, in one file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from utils.files import read_tensors, write_tensors
from utils.run_folder.description import Description, made_with

FOREIGN = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError)
FORMER_NAMES = {"robust_phase": "guidance"}  # of parts, in checkpoints of earlier versions
HINT = "give the same command with --restart (the run folder is moved to replaced/)"


class Checkpoint:
    """checkpoint.pt: the state of each part by its name, and the run's identity."""

    def __init__(self, path: Path, description: Description, parts: Mapping[str, Any]):
        """`description`: of the run; its identity must be equal where it is resumed.

        `parts`: tensors, and what has `state_dict` and `load_state_dict`.
        """
        self.path, self.description, self.parts = path, description, parts

    def save(self) -> None:
        """Write it whole or not at all.

        Raises FloatingPointError for numbers that are not finite, OSError for a disk that is full.
        """
        states = {
            name: part if isinstance(part, torch.Tensor) else part.state_dict()
            for name, part in self.parts.items()
        }
        for name, state in states.items():
            if not all(bool(each.isfinite().all()) for each in _tensors(state)):
                raise FloatingPointError(f"{name}: numbers that are not finite")
        run, versions = self.description.identity(), made_with()
        write_tensors(self.path, {"run": run, "versions": versions, "parts": states})

    def load(self) -> dict[str, str]:
        """Restore the parts; returns the versions it was made with where they differ from today's.

        Raises ValueError, naming the file, where it is not of this run.
        """
        content = read_tensors(self.path, "checkpoint", HINT)
        try:
            there, states = dict(content["run"]), dict(content["parts"])
            versions = dict(content["versions"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: not a checkpoint of a run; {HINT}") from error
        there = self.description.assumed() | there
        differing = [
            f"{name} {there.get(name)} there, {here} here"
            for name, here in self.description.identity().items()
            if there.get(name) != here
        ]
        if differing:
            raise ValueError(f"{self.path}: of another run ({'; '.join(differing)}); {HINT}")
        for name, part in self.parts.items():
            try:
                _restore(part, states[name if name in states else FORMER_NAMES.get(name)])
            except FOREIGN as error:
                reason = str(error).splitlines()[-1].strip() if str(error) else "no content"
                raise ValueError(
                    f"{self.path}: its {name} cannot be restored ({reason}); {HINT}"
                ) from error
        today = made_with()
        return {name: old for name, old in versions.items() if today.get(name) != old}


def _restore(part: Any, state: Any) -> None:
    if not isinstance(part, torch.Tensor):
        part.load_state_dict(state)
    elif state.shape != part.shape:
        raise ValueError(f"shape {tuple(state.shape)}")
    else:
        part.copy_(state)


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """The floating-point tensors in nested containers."""
    if isinstance(state, torch.Tensor):
        if state.is_floating_point():
            yield state
    elif isinstance(state, Mapping | list | tuple):
        for each in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors(each)
