"""Everything that a run needs to be resumed, in one file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from utils.files import read_tensors, write_tensors

FOREIGN = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError)
HINT = "give the same command with --restart (the run folder is moved to replaced/)"


class Part(Protocol):
    """What can be saved and restored: networks, optimiser, schedule, monitor, …"""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Checkpoint:
    """checkpoint.pt: the state of each part by its name, and the run's identity."""

    def __init__(
        self,
        path: Path,
        run: dict[str, Any],
        parts: Mapping[str, Part | torch.Tensor],
        versions: dict[str, str],
    ):
        """`run`: plain values that must be equal where it is resumed; `versions` need not be."""
        self.path, self.run, self.parts, self.versions = path, run, parts, versions

    def save(self) -> None:
        """Write it whole or not at all.

        Raises FloatingPointError for numbers that are not finite, OSError for a disk that is full.
        """
        states = {
            name: part if isinstance(part, torch.Tensor) else part.state_dict()
            for name, part in self.parts.items()
        }
        for name, state in states.items():
            if not all_finite(state):
                raise FloatingPointError(f"{name}: numbers that are not finite")
        write_tensors(self.path, {"run": self.run, "versions": self.versions, "parts": states})

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
        differing = [
            f"{name} {there.get(name)} there, {here} here"
            for name, here in self.run.items()
            if there.get(name) != here
        ]
        if differing:
            raise ValueError(f"{self.path}: of another run ({'; '.join(differing)}); {HINT}")
        for name, part in self.parts.items():
            try:
                _restore(part, states[name])
            except FOREIGN as error:
                reason = str(error).splitlines()[-1].strip() if str(error) else "no content"
                raise ValueError(
                    f"{self.path}: its {name} cannot be restored ({reason}); {HINT}"
                ) from error
        return {name: old for name, old in versions.items() if self.versions.get(name) != old}

    def remove(self) -> None:
        """The run is finished."""
        self.path.unlink(missing_ok=True)

    def describe(self) -> str:
        """Words for what there is to go back to."""
        if not self.path.exists():
            return "no checkpoint was written before"
        return f"the last good checkpoint is {self.path}"


def _restore(part: Part | torch.Tensor, state: Any) -> None:
    if not isinstance(part, torch.Tensor):
        part.load_state_dict(state)
    elif state.shape != part.shape:
        raise ValueError(f"shape {tuple(state.shape)}")
    else:
        part.copy_(state)


def all_finite(state: Any) -> bool:
    """Whether every floating-point tensor in nested containers has finite numbers only."""
    return all(bool(each.isfinite().all()) for each in _tensors(state))


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        if state.is_floating_point():
            yield state
    elif isinstance(state, Mapping):
        for each in state.values():
            yield from _tensors(each)
    elif isinstance(state, list | tuple):
        for each in state:
            yield from _tensors(each)
