"""Strong views: what the operations do, and that the seed alone decides."""

from functools import partial

import pytest
import torch
from torch import Tensor

from data import strong_views as module
from data.augmentation import augment_cifar10
from data.loader import Loader
from data.strong_views import OPERATIONS, cutout, strong_views

FILL = (125.0, 123.0, 114.0)
STRENGTHS = (0.0, 0.3, 0.5, 0.9999)


def picture(count: int = 20, channels: int = 3, side: int = 16) -> Tensor:
    """Smooth images, [count, channels, side, side] bytes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    return (255 * torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")).byte()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_changes_each_image_by_itself(name: str, channels: int):
    images, fill = picture(channels=channels), FILL[:channels]
    for strength in STRENGTHS:
        changed = OPERATIONS[name](images, strength, fill)
        assert changed.shape == images.shape and changed.dtype == torch.uint8
        assert torch.equal(changed[3:4], OPERATIONS[name](images[3:4], strength, fill))
    same = torch.equal(OPERATIONS[name](images, 0.0, fill), images)
    assert same == (name == "identity" or (name == "color" and channels == 1))


def test_operations_are_as_strong_as_in_fixmatch():
    image = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    image[:, :, 10:, 10:] = 200
    moved = OPERATIONS["move_x"](image, 1.0, FILL)  # by 0.3 of 20 pixels, to the right
    assert (moved[0, :, :, :6].flatten(1) == torch.tensor(FILL)[:, None]).all()
    assert torch.equal(moved[0, :, :, 6:], image[0, :, :, :14])
    assert torch.equal(OPERATIONS["move_y"](image, 1.0, FILL), moved.transpose(2, 3))
    assert OPERATIONS["brightness"](image, 0.0, FILL).max() == 10  # 0.05 of 200
    assert OPERATIONS["brightness"](image, 1.0, FILL).max() == 190
    assert OPERATIONS["posterize"](image + 7, 0.0, FILL).unique().tolist() == [0, 192]
    assert torch.equal(OPERATIONS["posterize"](image, 0.99, FILL), image)
    assert OPERATIONS["solarize"](image, 0.5, FILL).unique().tolist() == [0, 55]
    for name in ("rotate", "shear_x", "shear_y", "move_x", "move_y"):
        assert torch.equal(OPERATIONS[name](image, 0.5, FILL), image)


def test_the_seed_alone_decides_and_every_operation_is_drawn(monkeypatch: pytest.MonkeyPatch):
    images, before = picture(30), picture(30)
    views = strong_views(images, FILL, 5)
    assert torch.equal(images, before) and views.shape == images.shape
    assert torch.equal(views, strong_views(images, FILL, 5))
    assert not torch.equal(views, strong_views(images, FILL, 6))
    assert (views != images).flatten(1).any(1).float().mean() > 0.9
    applied: dict[str, int] = dict.fromkeys(OPERATIONS, 0)

    def count(name: str, images: Tensor, strength: float, fill: object) -> Tensor:
        assert 0 <= strength < 1
        applied[name] += len(images)
        return images

    counted = {name: partial(count, name) for name in OPERATIONS}
    monkeypatch.setattr(module, "OPERATIONS", counted)
    for seed in range(10):
        strong_views(images, FILL, seed)
    assert sum(applied.values()) == 10 * 3 * 30
    assert all(10 * 3 * 2 <= number <= 10 * 3 * 3 for number in applied.values())
    assert strong_views(images[:2], FILL, 0).shape == images[:2].shape  # fewer than operations


def test_cutout_fills_a_square_of_up_to_half_of_the_side():
    images = torch.zeros(4000, 3, 32, 32, dtype=torch.uint8)
    covered = cutout(images, FILL, torch.Generator().manual_seed(0))
    filled = (covered == torch.tensor(FILL).byte()[:, None, None]).all(1)
    assert torch.equal(filled, (covered != 0).any(1))
    height, width = filled.any(2).sum(1), filled.any(1).sum(1)
    assert max(height.max(), width.max()) <= 17 and torch.equal(filled.sum((1, 2)), height * width)
    assert 6 < height.float().mean() < 8  # half of 8 to 16, less what is beyond the edges


@pytest.mark.parametrize("size", [10, 25])
def test_a_strong_pass_has_the_plain_one_and_resumes_to_the_bit(size: int):
    def loader() -> Loader:
        how = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "batch_size": size}
        generator = torch.Generator().manual_seed(1)
        images, labels = picture(60, side=32), torch.arange(60)
        return Loader(
            images, labels, **how, generator=generator, augment=augment_cifar10, shuffle=True
        )

    plain, whole, later = loader(), loader(), loader()
    whole.strong = later.strong = True
    batches = [*whole]
    assert [len(images) for images, *_ in batches] == [2 * len(index) for *_, index in batches]
    for found, (images, labels, index) in zip(later.after(2), batches[2:], strict=True):
        assert all(map(torch.equal, found, (images, labels, index)))
    images, _, index = batches[0]
    assert torch.equal(index, next(iter(plain))[2])
    weak = images[: len(index)]
    assert not torch.equal(weak, images[len(index) :])
    assert weak.min() >= -2 and weak.max() <= 2
