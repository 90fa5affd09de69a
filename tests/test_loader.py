"""Batches: their order, their images, and where these are kept."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.transforms import functional as TF

from data import datasets
from data.augmentation import augment_cifar10, augment_cifar100
from data.cifar import CIFAR
from data.datasets import FOR_NETWORKS, fits, make_loaders
from data.loader import Loader, normalize, one_ahead
from data.splits import choose_positions
from tests.conftest import devices
from tests.test_augmentation import apply, random_bytes, seeded, unchanged
from utils.labels import Labels


@pytest.mark.parametrize(
    ("dataset", "mean", "std", "augment"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), augment_cifar10),
        ("cifar100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), augment_cifar100),
    ],
)
def test_normalise(dataset: str, mean: tuple, std: tuple, augment: Callable):
    assert CIFAR[dataset][2:] == (mean, std, augment)
    images = random_bytes(4, 3, 8, 8)
    result = normalize(images, torch.tensor(mean), torch.tensor(std))
    assert_close(result, TF.normalize(images / 255, mean, std), rtol=1e-5, atol=1e-6)


def numbered_loader(count: int, batch_size: int, seed: int = 0, shuffle: bool = False) -> Loader:
    """One-pixel images, which hold their position in two bytes; labels are ten times that."""
    number = torch.arange(count)
    images = torch.stack([number % 256, number // 256], 1)[..., None, None].to(torch.uint8)
    how = {"mean": (0.0, 0.0), "std": (1 / 255, 1 / 255)}  # keeps the bytes' values
    how |= {"batch_size": batch_size, "generator": seeded(seed), "shuffle": shuffle}
    return Loader(images, 10 * number, **how)


def one_pass(loader: Loader) -> list[int]:
    """The order of one pass; images and labels must belong to the index."""
    order = []
    for images, labels, index in loader:
        numbers = images[:, 0, 0, 0] + 256 * images[:, 1, 0, 0]
        assert_close(numbers, index.float(), rtol=0, atol=0.1)
        assert torch.equal(labels, 10 * index)
        order += index.tolist()
    return order


@pytest.mark.parametrize("shuffle", [False, True])
def test_loader_batches(shuffle: bool):
    loader = numbered_loader(45_000, 128, shuffle=shuffle)
    assert [len(index) for _, _, index in loader] == [128] * 351 + [72]
    assert len(loader) == 352
    assert len(numbered_loader(256, 128)) == len([*numbered_loader(256, 128)]) == 2


def test_loader_keeps_the_order_or_reshuffles_each_pass():
    in_order = numbered_loader(1000, 64)
    assert one_pass(in_order) == one_pass(in_order) == [*range(1000)]
    loader, again = (numbered_loader(1000, 64, shuffle=True) for _ in range(2))
    passes = [one_pass(loader) for _ in range(3)]
    assert all(sorted(order) == [*range(1000)] for order in passes)
    assert len({tuple(order) for order in [*passes, range(1000)]}) == 4
    assert [one_pass(again) for _ in range(3)] == passes
    assert one_pass(numbered_loader(1000, 64, seed=1, shuffle=True)) != passes[0]


def loader_of(images: Tensor, **options: object) -> Loader:
    statistics = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.4)}
    labels = torch.arange(len(images)).to(images.device)
    return Loader(images, labels, batch_size=10, **statistics, **options)


def test_loader_augments_before_it_normalises():
    images = random_bytes(10, 3, 32, 32)
    loader = loader_of(images, generator=seeded(0), augment=augment_cifar100)
    augmented = apply(augment_cifar100(unchanged(images), seeded(0)), images)
    for loader.augmented, expected in ((True, augmented), (False, images)):
        (result, _, _) = next(iter(loader))
        assert torch.equal(result, normalize(expected, loader.mean, loader.std))
        assert result.is_contiguous()


@devices
@pytest.mark.parametrize("augment", [None, augment_cifar10, augment_cifar100])
def test_memory_format_and_place_of_the_images_change_no_batch(device: str, augment: Callable):
    images = random_bytes(25, 3, 32, 32)
    plain, on_host, channels_last = (
        [*loader_of(images, generator=seeded(3, device), augment=augment, shuffle=True, **how)]
        for how in ({}, {"on_host": True}, {"memory_format": torch.channels_last})
    )
    assert [len(labels) for _, labels, _ in on_host] == [10, 10, 5]
    for expected, *others in zip(plain, on_host, channels_last, strict=True):
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(expected, other, strict=True))
            assert other[0].device.type == device
        assert others[1][0].is_contiguous(memory_format=torch.channels_last)


def test_images_are_moved_one_batch_ahead():
    taken = []

    def batches() -> Iterator[Tensor]:
        for number in range(3):
            taken.append(number)
            yield torch.full((2, 4, 4, 1), number)

    moved = one_ahead(batches(), torch.device("cpu"))
    table, places = next(moved)
    assert taken == [0, 1] and table.images(places).unique().tolist() == [0]
    assert [table.images(places).unique().item() for table, places in moved] == [1, 2]
    assert list(one_ahead([], torch.device("cpu"))) == []


def test_images_too_large_for_the_device_stay_on_the_host(monkeypatch: pytest.MonkeyPatch):
    assert fits(2**50, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (FOR_NETWORKS + 1000, 2**50))
    assert fits(1000, torch.device("cuda")) and not fits(1001, torch.device("cuda"))
    monkeypatch.setattr(datasets, "fits", lambda size, device: size < 100_000)
    images = datasets.load_images("digits", Path())
    positions = choose_positions(1297, 0.1, seed=0, limit=None)
    clean = images.train.clean_labels
    labels = Labels(clean, clean, images.class_names, positions)
    loaders = make_loaders(images, labels, 64, seeded(0), True)
    assert all(loader.on_host for loader in loaders)  # all of them take 189 kB
    assert not datasets.clean_test_loader(images, seeded(0)).on_host  # 32 kB
