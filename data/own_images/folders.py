"""Own images in folders: which folders are classes and splits, and what is in them."""

import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from utils.manifest import nfc
from utils.split_names import SPLITS, TEST, TRAIN, VAL

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
RUN = "args.json"  # in each run folder


def in_folders(
    images: Path, outputs: Container[str]
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """File name, label and split of each image, and a line for each thing that is amiss.

    As torchvision's ImageFolder: a folder for each class, in `train` and `test` or directly.
    `outputs`: real paths of folders that count for nothing. Raises ValueError as `_places`.
    """
    warnings: list[str] = []
    names = []
    deeper: dict[str, set[str]] = {}  # class -> folders in it that hold all its images
    for place, split in _places(images, outputs, warnings).items():
        for folder in _entries(place):
            if not folder.is_dir():
                warnings.append(f"{folder}: not used, for it is in no class's folder")
                continue
            files = list(_image_files(folder, outputs, warnings))
            relative = [file.relative_to(images).as_posix() for file in files]
            names += [(name, nfc(folder.name), split) for name in relative]
            if not files:
                warnings.append(f"{folder}: no images of this class")
            elif all(file.parent != folder for file in files):
                deeper[folder.name] = {file.relative_to(folder).parts[0] for file in files}
    if len(inner := sorted(set().union(*deeper.values()))) > 1:
        warnings.insert(
            0,
            f"all images of {some_of(deeper)} are in folders there ({some_of(inner)}), whose names "
            "do not count; where these are the classes, name the folder above them by --images",
        )
    return names, warnings


def _places(images: Path, outputs: Container[str], warnings: list[str]) -> dict[Path, str]:
    """The folders that hold the classes' folders, and which split is in them.

    Raises ValueError where it cannot be told whether a folder is a split or a class.
    """
    folders = [path for path in _entries(images) if path.is_dir()]
    names = {path: path.name.casefold() for path in folders if path.name.casefold() in SPLITS}
    if not names:
        return {images: TRAIN}
    whole = [path for path in names if _holds_classes(path, outputs)]
    others = [path for path in folders if path not in names and any(_image_files(path, outputs))]
    if others and not whole:  # a class may be called train
        warnings += [f"{path}: read as a class, for it holds no classes' folders" for path in names]
        return {images: TRAIN}
    splits = {SPLITS[names[path]] for path in whole}
    if others and not (TRAIN in splits and len(splits) > 1):
        raise ValueError(
            f"{images}: are {some_of(path.name for path in others)} classes, or is {whole[0].name} "
            f"the {SPLITS[names[whole[0]]]} split? Name the folder of the classes' folders by "
            "--images, or list the files with --manifest"
        )
    used: dict[Path, str] = {}
    for split in (TRAIN, TEST, VAL):
        there = [path for path in names if SPLITS[names[path]] == split]
        there.sort(key=lambda path: (path not in whole, [*SPLITS].index(names[path])))
        used |= dict.fromkeys(there[:1], split)
    beside = " and ".join(path.name for path in used)
    warnings += [f"{path}: not used beside {beside}" for path in folders if path not in used]
    return used


def _holds_classes(folder: Path, outputs: Container[str]) -> bool:
    """Whether there are folders of images in it, and no images beside them."""
    return any(_image_files(folder, outputs)) and not any(
        path.suffix.lower() in ENDINGS for path in _entries(folder)
    )


def some_of(names: Iterable[str], count: int = 5) -> str:
    """The first of the names."""
    names = list(names)
    return ", ".join([*names[:count], *(["…"] if len(names) > count else [])])


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name, hidden files left out; nothing where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _image_files(
    folder: Path, outputs: Container[str], warnings: list[str] | None = None
) -> Iterator[Path]:
    """The images in a folder and below it, each folder once, however many links lead to it."""
    warnings = [] if warnings is None else warnings

    def unreadable(error: OSError) -> None:
        warnings.append(f"{error.filename}: cannot be read ({error.strerror})")

    real = Path(os.path.realpath(folder))
    seen = {str(each) for each in (real, *real.parents)}  # a link upwards would lead to all classes
    for place, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        if RUN in files or os.path.realpath(place) in outputs:
            warnings.append(f"{place}: left out, for it holds results or data of this program")
            folders.clear()
            continue
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if real in seen:
                warnings.append(f"{place}/{name}: a link to a folder that is read already")
            if name.startswith(".") or real in seen:
                folders.remove(name)
            seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in ENDINGS:
                warnings.append(f"{path}: no image by its ending; known are {', '.join(ENDINGS)}")
            else:
                yield path
