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
