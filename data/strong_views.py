"""Strong views: each image changed by three random operations, then partly covered.

The pool of FixMatch (Sohn et al. 2020) with uniform strength, and cutout, as in ProMix (Xiao et al.
2023). B images of bytes, [B, channels, H, W].
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

PER_IMAGE = 3  # operations, drawn with replacement
LARGEST_CUTOUT = 0.5  # of the side
TURN, SHEAR, MOVE = 30, 0.3, 0.3  # largest: degrees, slope, share of the side
Operation = Callable[[Tensor, float, Sequence[float]], Tensor]  # images, strength 0 to 1, fill


def _factor(change: Callable[[Tensor, float], Tensor]) -> Operation:
    return lambda images, strength, fill: change(images, 0.05 + 0.9 * strength)


def _affine(images: Tensor, fill: Sequence[float], shear: tuple, move: tuple) -> Tensor:
    """Sheared by slopes and moved by shares of the sides, each along the rows and the columns."""
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    pixels = [share * side for share, side in zip(move, images.shape[:1:-1], strict=True)]
    return functional.affine(images, 0, pixels, 1, degrees, fill=list(fill))


def _signed(strength: float, most: float) -> float:
    return (2 * strength - 1) * most


OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, strength, fill: images,
    "autocontrast": lambda images, strength, fill: functional.autocontrast(images),
    "equalize": lambda images, strength, fill: functional.equalize(images),
    "brightness": _factor(functional.adjust_brightness),
    "color": _factor(functional.adjust_saturation),
    "contrast": _factor(functional.adjust_contrast),
    "sharpness": _factor(functional.adjust_sharpness),
    "posterize": lambda images, strength, fill: functional.posterize(images, 4 + int(5 * strength)),
    "solarize": lambda images, strength, fill: functional.solarize(images, 255 * strength),
    "rotate": lambda images, strength, fill: functional.rotate(
        images, _signed(strength, TURN), fill=list(fill)
    ),
    "shear_x": lambda images, strength, fill: _affine(
        images, fill, (_signed(strength, SHEAR), 0), (0, 0)
    ),
    "shear_y": lambda images, strength, fill: _affine(
        images, fill, (0, _signed(strength, SHEAR)), (0, 0)
    ),
    "move_x": lambda images, strength, fill: _affine(
        images, fill, (0, 0), (_signed(strength, MOVE), 0)
    ),
    "move_y": lambda images, strength, fill: _affine(
        images, fill, (0, 0), (0, _signed(strength, MOVE))
    ),
}


def strong_views(images: Tensor, fill: Sequence[float], seed: int) -> Tensor:
    """A strong view of each image; `fill`: bytes of each channel for what is uncovered or cut out.

    All is drawn by the seed, on the CPU, so that a GPU waits for nothing. Each operation gets the
    same share of the batch, drawn anew three times, and one strength for all of it.
    """
    generator = torch.Generator().manual_seed(seed)
    views = images.clone()
    for _ in range(PER_IMAGE):
        strengths = torch.rand(len(OPERATIONS), generator=generator).tolist()
        order = torch.randperm(len(OPERATIONS), generator=generator).tolist()
        places = torch.randperm(len(images), generator=generator).to(images.device)
        operations = [*OPERATIONS.values()]
        for k, place in zip(order, places.tensor_split(len(order)), strict=True):
            if len(place):
                views[place] = operations[k](views[place], strengths[k], fill)
    return cutout(views, fill, generator)


def cutout(images: Tensor, fill: Sequence[float], generator: torch.Generator) -> Tensor:
    """The images with a square of each filled, of a side of 0 to half of theirs."""
    height, width = images.shape[2:]
    sides, down, right = torch.rand(3, len(images), 1, generator=generator).to(images.device)
    half = sides * LARGEST_CUTOUT * min(height, width) / 2

    def within(center: Tensor, size: int) -> Tensor:
        pixels = torch.arange(size, device=images.device) + 0.5
        return (pixels - center * size).abs() < half  # [B, size]

    square = within(down, height)[:, None, :, None] & within(right, width)[:, None, None]
    filled = torch.tensor(fill, device=images.device).to(images.dtype)[:, None, None]
    return torch.where(square, filled, images)
