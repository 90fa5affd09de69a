"""Every source of randomness takes the one seed."""

import os
import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int, device: torch.device) -> torch.Generator:
    """Seed `random`, numpy's and torch's global generators, and return one of our own on `device`.

    The returned generator draws batches and augmentation.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CUDA's generators too
    return torch.Generator(device).manual_seed(seed)


def be_deterministic() -> None:
    """Let CUDA compute the same bits each time. To be called before anything runs there.

    The CPU does anyway, with the same number of threads.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


class Randomness:
    """The states of all random generators as they were when last marked."""

    def __init__(self, generator: torch.Generator):
        """`generator`: our own, besides the global ones."""
        self.generator = generator
        self.mark()

    def mark(self) -> None:
        """Take down the states as they are now."""
        kind, keys, *rest = np.random.get_state()
        self.marked = {
            "python": random.getstate(),
            "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self.generator.device.type == "cuda" else [],
            "own": self.generator.get_state(),
        }

    def state_dict(self) -> dict[str, Any]:
        """The marked states, in plain containers and tensors."""
        return self.marked

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, which is marked too."""
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        for device, each in enumerate(state["cuda"]):  # none of a run on the CPU
            if device < torch.cuda.device_count():
                torch.cuda.set_rng_state(each, device)
        self.generator.set_state(state["own"])
        self.mark()
