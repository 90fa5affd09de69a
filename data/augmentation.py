"""Flips and crops as index maps: they move no pixels, but say where each pixel comes from."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

OUTSIDE = -1  # a place outside the image: black


class Window(NamedTuple):
    """The row and the column of its source image that each pixel of B results is taken from."""

    rows: Tensor  # [B, H]
    columns: Tensor  # [B, W]


Augmentation = Callable[[Window, torch.Generator], Window]


def whole(count: int, height: int, width: int, device: torch.device) -> Window:
    """Each of `count` images unchanged."""
    sides = (torch.arange(size, device=device).expand(count, -1) for size in (height, width))
    return Window(*sides)


def flip(window: Window, generator: torch.Generator) -> Window:
    """Each image mirrored left to right with probability one half."""
    rows, columns = window
    mirrored = torch.rand(len(rows), generator=generator, device=rows.device) < 0.5  # [B]
    return Window(rows, torch.where(mirrored[:, None], columns.flip(-1), columns))


def random_crop(window: Window, generator: torch.Generator, padding: int, mode: str) -> Window:
    """A crop of each image's own size at a random place of the image padded on all sides.

    `padding`: pixels on each side; `mode`: "reflect" pads with the mirror image without repeating
    the edge, "zeros" with black. Raises ValueError for another mode.
    """
    rows, columns = window
    offsets = torch.randint(
        -padding, padding + 1, (2, len(rows), 1), generator=generator, device=rows.device
    )
    return Window(shift(rows, offsets[0], mode), shift(columns, offsets[1], mode))


def shift(places: Tensor, offsets: Tensor, mode: str) -> Tensor:
    """The `places` [B, L] at `offsets` [B, 1] from each, padded beyond the edges: [B, L].

    `mode` as in `random_crop`.
    """
    last = places.shape[1] - 1
    source = torch.arange(last + 1, device=places.device) + offsets  # [B, L]
    if mode == "reflect":
        return places.gather(1, last - (last - source.abs()).abs())
    if mode != "zeros":
        raise ValueError(f"crop mode {mode!r}: choose 'reflect' or 'zeros'")
    inside = source.clamp(0, last)
    return torch.where(source == inside, places.gather(1, inside), OUTSIDE)


def flip_and_crop(window: Window, generator: torch.Generator, padding: int) -> Window:
    """Flip, then crop with so many pixels of reflection padding."""
    return random_crop(flip(window, generator), generator, padding, mode="reflect")


augment_cifar10 = partial(flip_and_crop, padding=4)  # as the authors do for CIFAR-10


def augment_cifar100(window: Window, generator: torch.Generator) -> Window:
    """Crop with 4 pixels of zero padding, then flip, as the authors do for CIFAR-100."""
    return flip(random_crop(window, generator, padding=4, mode="zeros"), generator)
