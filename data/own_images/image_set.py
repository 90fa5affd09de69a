"""`--dataset folder`: the user's own images and labels as an image set."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.augmentation import Augmentation, flip_and_crop, random_crop
from data.images import UNKNOWN, ImageSet, OwnSource, Split
from data.own_images.cache import FOLDER, CachedImages, cached_images
from data.own_images.files import ImageFiles, find_images
from data.own_images.folders import some_of
from data.own_images.reading import usual_side
from utils.manifest import LABEL, TRUE_LABEL, nfc
from utils.options.own_images import IMAGE_SIZES

MEASURED = 10_000  # training images, evenly spread, by which mean and standard deviation are taken
CLASSES_NAMED = 20  # in the line at the start
NO_LABEL = {"", "nan", "none", "null", "na", "n/a", "<na>", "-1.0"}  # class names in lower case
SMALLEST_STD = 0.01  # of images that hardly differ


def load_own_images(
    images: Path | None,
    manifest: Path | None,
    size: int | None,
    data_dir: Path,
    quiet: bool,
    flip: bool = True,
    leave_out: Sequence[Path] = (),
    columns: str | None = None,
) -> ImageSet:
    """Find, read (or take from the cache) and check the images.

    `size`: their side in pixels; None: IMAGE_SIZES[1] where most are as large, else IMAGE_SIZES[0].
    `flip`: they are mirrored at random in training. `leave_out`: folders below `images` whose
    images are none of them, beside `data_dir` and run folders. `columns`: see `read_manifest`.
    Raises OSError or ValueError, with a hint, where there is nothing to train on; single files that
    are amiss are left out with a warning.
    """
    files = find_images(images, manifest, (data_dir, data_dir / FOLDER, *leave_out), columns)
    rows = [*files.train, *files.test, *files.val]
    names = [files.name(row) for row in rows]
    if size is None:
        small, large, *_ = IMAGE_SIZES
        size = large if usual_side([files.path(row) for row in files.train]) >= large else small
    cached = cached_images([files.path(row) for row in rows], names, size, data_dir, quiet)
    warnings = [*files.warnings]
    warnings += [f"{files.path(rows[k])}: {why}" for k, why in sorted(cached.broken.items())]
    if not cached.read or cached.read[0] >= len(files.train):
        why = warnings[-1]
        if manifest and why.endswith("no such file"):
            why += "; names are relative to --images, or to the manifest's folder"
        raise ValueError(f"{manifest or images}: no training image can be read; {why}")
    augment = flip_and_crop if flip else partial(random_crop, mode="reflect")
    return _assembled(files, rows, cached, warnings, partial(augment, padding=size // 8))


def _assembled(
    files: ImageFiles,
    rows: Sequence[int],
    cached: CachedImages,
    warnings: list[str],
    augment: Augmentation,
) -> ImageSet:
    """The image set of the files that could be read."""
    labels = [nfc(label) for label in files.manifest.cells(LABEL)]
    read = [rows[place] for place in cached.read]  # manifest's rows
    count = sum(place < len(files.train) for place in cached.read)  # training images come first
    names = [labels[row] for row in read]  # of classes
    class_names = sorted({*names[:count]})
    if len(class_names) < 2:
        raise ValueError(
            f"{files.root}: all images are labelled {class_names[0]!r}; needed are two classes; "
            "where their folders are one level deeper, name the folder above these by --images"
        )
    numbers = {name: number for number, name in enumerate(class_names)}
    counts = dict(sorted(Counter(names[:count]).items()))
    if cached.constant:
        some = some_of(files.name(read[k]) for k in cached.constant)
        warnings.insert(0, f"{len(cached.constant)} images are of a single colour: {some}")
    warnings[:0] = _strange_classes(counts)
    files = files._replace(same=_identical(read, cached.content))
    warnings += _conflicts(files, labels)
    tested, trained = range(count, len(read)), {*cached.content[:count]}
    seen = [k for k in tested if cached.content[k] in trained]
    known = [k for k in tested if names[k] in numbers and cached.content[k] not in trained]
    if strange := len(tested) - len(seen) - len(known):
        warnings.insert(0, f"{strange} test images do not count: no training image has their label")
    if seen:
        line = f"{len(seen)} test images do not count, for they are training images as well"
        warnings.insert(0, f"{line}: {some_of(files.name(read[k]) for k in seen)}")
    kept, judged = [*range(count), *known], len(known)
    if known != [*tested][:judged]:  # in memory: the mapped file stays as it is
        cached.pixels[count : len(kept)] = cached.pixels[known]
    pixels = torch.from_numpy(cached.pixels[: len(kept)]).permute(0, 3, 1, 2)  # [N, 3, size, size]
    given = torch.tensor([numbers[names[k]] for k in kept])
    train = Split(pixels, _true_labels(files, [read[k] for k in kept], numbers, warnings))
    measured = {*(files.test or files.val)}
    places = [place for place, k in enumerate(kept) if read[k] in measured]
    test = Split(pixels[places], given[places]) if places else None
    mean, std = _mean_and_std(cached.pixels[:count])
    about = _classes(counts, len(places), judged - len(places))
    facts = [files.about, about, _depth(cached) if cached.scale else ""]
    lines, facts = ([_one_line(words) for words in each if words] for each in (warnings, facts))
    about = lines, cached.sha256, facts, cached.scale, cached.pixels
    own = OwnSource(files, [read[k] for k in kept], judged, given, *about)
    return ImageSet(train, test, class_names, mean, std, augment, own)


def _classes(counts: dict[str, int], test: int, val: int) -> str:
    """How many images there are, of which classes."""
    more = f" and {val} validation images" if val else ""
    some = some_of((f"{name} {count}" for name, count in counts.items()), CLASSES_NAMED)
    images = f"{sum(counts.values())} training images of {len(counts)} classes"
    return f"{images} ({some}), {test} test images{more}"


def _depth(cached: CachedImages) -> str:
    """How images of more than 8 bits were read."""
    black, white = cached.scale
    strange = f"; {cached.not_finite} have NaN or infinite pixels, read as black"
    return (
        f"{cached.deep} images have more than 8 bits: in all of these {black:g} is black and "
        f"{white:.10g} is white{strange if cached.not_finite else ''}"
    )


def _true_labels(
    files: ImageFiles, rows: Sequence[int], numbers: dict[str, int], warnings: list[str]
) -> torch.Tensor:
    """True labels of the manifest's column [N], UNKNOWN where it has none."""
    names = [nfc(name) for name in files.manifest.cells(TRUE_LABEL)]
    strange = {names[row] for row in rows} - {*numbers, ""}
    if strange:
        some = some_of(sorted(strange))
        warnings.append(f"true labels that no training image is given count as unknown: {some}")
    return torch.tensor([numbers.get(names[row], UNKNOWN) for row in rows])


def _one_line(words: str) -> str:
    """With the line breaks and the like that file names may have written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def _strange_classes(counts: dict[str, int]) -> list[str]:
    """A line for classes whose names are nearly equal or mean that there is none, or of one image.

    `counts`: class name -> training images.
    """
    near: dict[str, list[str]] = {}
    for name in counts:
        shown = "".join(c for c in name if unicodedata.category(c) != "Cf")  # nor zero-width ones
        word = " ".join(unicodedata.normalize("NFKC", shown).casefold().split())
        with suppress(ValueError):
            word = str(float(word) + 0)  # 1, 1.0 and 01; 0 and -0
        near.setdefault(word, []).append(name)
    lines = []
    for word, names in near.items():
        listed = ", ".join(map(repr, names))
        if len(names) > 1:
            lines.append(
                f"classes {listed} differ in case, blanks or number form alone: one class?"
            )
        if word in NO_LABEL:
            lines.append(f"class {listed} reads like a missing label: leave out its images if so")
    return lines + [
        f"class {name!r} has a single image: nothing can be learnt of it"
        for name, count in counts.items()
        if count == 1
    ]


def _identical(rows: Sequence[int], content: Sequence[str]) -> list[list[int]]:
    """Groups of rows whose files have the same digest."""
    groups: dict[str, list[int]] = {}
    for row, digest in zip(rows, content, strict=True):
        groups.setdefault(digest, []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _conflicts(files: ImageFiles, labels: Sequence[str]) -> list[str]:
    """A line for each file that is the same as an earlier one but has another label."""
    return [
        f"{files.path(row)}: the same image as {files.path(first)}, but labelled "
        f"{labels[row]!r} and not {labels[first]!r}: one of the two is wrong"
        for first, *others in files.same
        for row in others
        if labels[row] != labels[first]
    ]


def _mean_and_std(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel, as fractions of 255."""
    some = pixels[:: -(-len(pixels) // MEASURED)] / 255
    mean, std = some.mean((0, 1, 2)), some.std((0, 1, 2)).clip(SMALLEST_STD)
    return tuple(mean.tolist()), tuple(std.tolist())
