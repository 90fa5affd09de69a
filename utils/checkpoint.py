"""Everything that a run needs to go on from where it was, in one file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from utils.files import read_tensors, write_tensors

FOREIGN = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError)
CURE = "give the same command with --restart to begin anew (the run folder is moved aside)"


class Part(Protocol):
    """What can be saved and gone on from: networks, optimiser, schedule, monitor, …"""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class OptimizerPart:
    """An optimiser, which by itself takes velocities of any shape."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; raises ValueError for other weights'."""
        known = [group.keys() for group in self.optimizer.param_groups]
        if [group.keys() for group in state["param_groups"]] != known:
            raise ValueError("other settings")
        self.optimizer.load_state_dict(state)
        for weight, velocities in self.optimizer.state.items():
            for name, each in velocities.items():
                if isinstance(each, torch.Tensor) and each.shape != weight.shape:
                    raise ValueError(f"{name} of shape {tuple(each.shape)}")


class Checkpoint:
    """checkpoint.pt: the state of each part by its name, and what the run is."""

    def __init__(
        self,
        path: Path,
        run: dict[str, Any],
        parts: Mapping[str, Part],
        versions: dict[str, str] | None = None,
    ):
        """`run`: plain values that must be the same where it is gone on with; `versions`: not."""
        self.path, self.run, self.parts, self.versions = path, run, parts, versions or {}

    def save(self) -> None:
        """Write it whole or not at all.

        Raises FloatingPointError for numbers that are not finite, OSError for a disk that is full.
        """
        states = {name: part.state_dict() for name, part in self.parts.items()}
        for name, state in states.items():
            if not all_finite(state):
                raise FloatingPointError(f"{name}: numbers that are not finite")
        write_tensors(self.path, {"run": self.run, "versions": self.versions, "parts": states})

    def load(self) -> dict[str, str]:
        """Go on from the file; returns which versions it was made with where those were others.

        Raises ValueError, naming the file, where it is not of this run.
        """
        content = read_tensors(self.path, "checkpoint", CURE)
        try:
            there, states = dict(content["run"]), dict(content["parts"])
            versions = dict(content["versions"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: not a checkpoint of a run; {CURE}") from error
        differing = [
            f"{name} {there.get(name)} there, {here} here"
            for name, here in self.run.items()
            if there.get(name) != here
        ]
        if differing:
            raise ValueError(f"{self.path}: of another run ({'; '.join(differing)}); {CURE}")
        for name, part in self.parts.items():
            try:
                if not all_finite(states[name]):
                    raise ValueError("numbers that are not finite")
                part.load_state_dict(states[name])
            except FOREIGN as error:
                reason = str(error).splitlines()[-1].strip() if str(error) else "no content"
                raise ValueError(
                    f"{self.path}: its {name} cannot be gone on from ({reason}); {CURE}"
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
