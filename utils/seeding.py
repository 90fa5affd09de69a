"""Every source of randomness takes the one seed."""

import random

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


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto": CUDA where there is one, else the CPU.

    Raises ValueError, with the cure, for a name that is none and for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("untried")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name}: no such device here; choose auto, cpu, cuda or cuda:N"
        ) from error
    return device
