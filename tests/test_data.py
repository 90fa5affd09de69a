"""Splits, label sets and digits; flips and crops; batches: order, images, where these are kept."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from sklearn.datasets import load_digits as sklearn_digits
from torch import Tensor
from torch.testing import assert_close
from torchvision.transforms import functional as TF

from data import datasets
from data.augmentation import augment_cifar10, augment_cifar100, flip, random_crop, whole
from data.cifar import CIFAR
from data.datasets import FOR_NETWORKS, fits, given_labels, make_loaders
from data.digits import TRANSITIONS, load_digits, noisy_digits
from data.loader import Loader, PixelTable, normalize, one_ahead
from data.splits import choose_positions, split_indices
from tests.conftest import call, devices
from utils.label_sets import LABEL_SETS
from utils.labels import Labels


@pytest.mark.parametrize("seed", [0, 42])
@pytest.mark.parametrize(
    ("count", "ratio", "held"), [(50_000, 0.1, 5000), (1297, 0.1, 129), (100, 0.0, 0)]
)
def test_split_equals_the_authors(seed: int, count: int, ratio: float, held: int):
    state = np.random.get_state()
    np.random.seed(seed)
    expected = np.arange(count)
    np.random.shuffle(expected)
    np.random.set_state(state)
    train, val = split_indices(count, ratio, seed)
    assert np.array_equal(val, expected[:held])
    assert np.array_equal(train, expected[held:])
    assert sorted([*train, *val]) == [*range(count)]
    assert np.array_equal(np.random.get_state()[1], state[1])  # the global generator is unused
    assert np.random.get_state()[2] == state[2]


def test_split_of_seed_0():
    train, val = split_indices(50_000, 0.1, 0)
    assert val[:4].tolist() == [11841, 19602, 45519, 25747] and val[-1] == 23333
    assert train[:3].tolist() == [19977, 31768, 43126]


def test_digits():
    np.random.seed(1)
    train, test, names = load_digits()
    np.random.seed(2)
    assert all(torch.equal(a, b) for a, b in zip(train, load_digits()[0], strict=True))
    assert train.images.shape == (1297, 1, 8, 8)
    assert test.images.shape == (500, 1, 8, 8)
    assert train.images.dtype == torch.uint8
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert names == [str(k) for k in range(10)]
    clean = given_labels("digits", "clean", train.clean_labels, Path(), None, 0)
    assert torch.equal(clean, train.clean_labels)
    # Together they are exactly scikit-learn's images, whose largest value is 16.
    ours = [
        [label, *(16 / 255 * image.flatten()).round().int().tolist()]
        for split in (train, test)
        for image, label in zip(split.images, split.clean_labels.tolist(), strict=True)
    ]
    source = sklearn_digits()
    assert sorted(ours) == sorted(np.column_stack([source.target, source.data]).tolist())


def test_choose_positions():
    train, scored, val = choose_positions(100, 0.1, seed=3, limit=20)
    assert np.array_equal(train, split_indices(100, 0.1, 3)[0][:20])
    assert scored.tolist() == sorted(train) and len(val) == 10
    everything = choose_positions(100, 0.0, seed=3, limit=None)
    assert everything.scored.tolist() == [*range(100)]
    assert np.array_equal(everything.val, everything.train)  # none are held out
    with pytest.raises(ValueError, match=r"--val_ratio 0.005: is none of 100 images"):
        choose_positions(100, 0.005, seed=3, limit=None)


def test_label_sets():
    assert all(each.default in each.keys for each in LABEL_SETS.values())
    assert set(LABEL_SETS) == {*CIFAR, "digits", "folder"}
    assert set(LABEL_SETS["digits"].keys) == {*TRANSITIONS, "clean"}
    heavy = "import utils.label_sets, sys; assert not {'torch', 'numpy'} & sys.modules.keys()"
    assert call("-c", heavy).returncode == 0


@pytest.mark.parametrize("noise_type", TRANSITIONS)
def test_noisy_digits(noise_type: str):
    rows = np.array(TRANSITIONS[noise_type])
    assert rows.shape == (10, 10) and rows.min() >= 0 and (rows.sum(1) == 10_000).all()
    assert np.array_equal(rows.argmax(1), np.arange(10))
    clean_labels = load_digits()[0].clean_labels
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first, again, other = (
        given_labels("digits", noise_type, clean_labels, Path(), None, seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    counts = np.zeros((10, 10))  # true class, given class
    for seed in range(200):
        np.add.at(counts, (clean_labels, noisy_digits(noise_type, clean_labels.numpy(), seed)), 1)
    assert np.abs(counts / counts.sum(1, keepdims=True) - rows / 10_000).max() < 0.015
    noise = 1 - counts.trace() / counts.sum()
    table = {"aggre": 0.0901, "rand1": 0.17234, "worst": 0.40208}  # CIFAR-10N's, equal classes
    assert noise == pytest.approx(table[noise_type], abs=0.005)
    assert np.array_equal(np.random.get_state()[1], before)


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


def apply(window: tuple, images: Tensor) -> Tensor:
    return PixelTable(images).windows(torch.arange(len(images)), window).permute(0, 3, 1, 2)


def unchanged(images: Tensor) -> tuple:
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
