"""Flips and crops against torchvision's."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor
from torchvision.transforms import functional as TF

from data.augmentation import (
    Window,
    augment_cifar10,
    augment_cifar100,
    flip,
    random_crop,
    shift,
    whole,
)
from data.loader import PixelTable

PADDINGS = {"reflect": "reflect", "zeros": "constant"}  # crop mode -> torchvision's word
modes = pytest.mark.parametrize("mode", PADDINGS)


def seeded(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def random_bytes(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=seeded(9), dtype=torch.uint8)


def located(count: int) -> Tensor:
    """Random images whose first two channels hold each pixel's row and column."""
    images = random_bytes(count, 3, 32, 32)
    images[:, 0] = torch.arange(32)[:, None]
    images[:, 1] = torch.arange(32)
    return images


def crop(image: Tensor, row: int, column: int, padding: int, mode: str) -> Tensor:
    """torchvision's crop at an offset from the middle of the padded image."""
    padded = TF.pad(image, padding, fill=0, padding_mode=PADDINGS[mode])
    return TF.crop(padded, padding + row, padding + column, *image.shape[-2:])


def apply(window: Window, images: Tensor) -> Tensor:
    return PixelTable(images).windows(torch.arange(len(images)), window).permute(0, 3, 1, 2)


def unchanged(images: Tensor) -> Window:
    return whole(len(images), *images.shape[-2:], images.device)


def test_the_whole_window_leaves_images_unchanged():
    images = random_bytes(3, 3, 8, 12)
    assert torch.equal(apply(unchanged(images), images), images)
    table = PixelTable(images)
    index = torch.tensor([2, 0])
    assert torch.equal(table.images(index), images[index].permute(0, 2, 3, 1))
    assert torch.equal(table.windows(index, unchanged(images[:2])), table.images(index))


def test_flip():
    images = located(2000)
    result = apply(flip(unchanged(images), seeded(0)), images)
    flipped = result[:, 1, 0, 0] == 31
    assert torch.equal(result[flipped], TF.hflip(images[flipped]))
    assert torch.equal(result[~flipped], images[~flipped])
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.05)


@modes
def test_random_crop(mode: str):
    images = located(2000)
    result = apply(random_crop(unchanged(images), seeded(0), padding=4, mode=mode), images)
    assert result.dtype == torch.uint8
    middle = result[:, :2, 16, 16].int() - 16  # never in the padding
    offsets = [tuple(offset) for offset in middle.tolist()]
    steps = range(-4, 5)
    assert set(offsets) == {*itertools.product(steps, steps)}
    for image, cropped, offset in zip(images[:300], result, offsets, strict=False):
        assert torch.equal(cropped, crop(image, *offset, 4, mode))


def test_offsets_and_flips_are_uniform():  # as torchvision's
    count, steps = 20_000, range(-4, 5)
    everywhere = whole(count, 32, 32, torch.device("cpu"))
    rows, columns = random_crop(everywhere, seeded(0), padding=4, mode="reflect")
    drawn = [*zip((rows[:, 16] - 16).tolist(), (columns[:, 16] - 16).tolist(), strict=True)]
    counts = [drawn.count(place) for place in itertools.product(steps, steps)]
    assert sum(counts) == count and chisquare(counts).pvalue > 0.001
    mirrored = (flip(everywhere, seeded(2)).columns[:, 0] == 31).sum().item()
    assert binomtest(mirrored, count).pvalue > 0.001


@modes
def test_crop_of_images_that_are_not_square(mode: str):
    images = random_bytes(2, 3, 8, 12)
    offsets = [(-3, 2), (1, -3)]
    rows, columns = (
        shift(places, torch.tensor([[offset[axis]] for offset in offsets]), mode)
        for axis, places in enumerate(unchanged(images))
    )
    result = apply(Window(rows, columns), images)
    for image, cropped, offset in zip(images, result, offsets, strict=True):
        assert torch.equal(cropped, crop(image, *offset, 3, mode))


def test_crop_refuses_unknown_modes():
    with pytest.raises(ValueError, match="edge"):
        random_crop(unchanged(random_bytes(1, 1, 8, 8)), seeded(0), padding=1, mode="edge")


@pytest.mark.parametrize(
    ("augment", "mode", "flip_first"),
    [(augment_cifar10, "reflect", True), (augment_cifar100, "zeros", False)],
)
def test_cifar_augmentations(augment: Callable, mode: str, flip_first: bool):
    images = random_bytes(30, 3, 32, 32)

    def augmented_with(generator: torch.Generator) -> Tensor:
        return apply(augment(unchanged(images), generator), images)

    result = augmented_with(seeded(0))
    assert torch.equal(result, augmented_with(seeded(0)))
    assert not torch.equal(result, augmented_with(seeded(1)))
    generator = seeded(0)
    assert not torch.equal(augmented_with(generator), augmented_with(generator))

    generator, expected = seeded(0), images
    cropping = partial(random_crop, padding=4, mode=mode)
    for change in (flip, cropping) if flip_first else (cropping, flip):
        expected = apply(change(unchanged(expected), generator), expected)
    assert torch.equal(result, expected)
