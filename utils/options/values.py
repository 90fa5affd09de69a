"""The kinds of values that options have, and options from a table."""

import argparse
import errno
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LARGEST = 2**31 - 1  # of a count: more than any data set, and what torch takes


def number(kind: type, low: float, high: float, allowed: str) -> Callable[[str], Any]:
    """A type of option: numbers of that kind from `low` to `high`, which `allowed` describes."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN fails too
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return value

    return parse


count = number(int, 1, LARGEST, f"a whole number from 1 to {LARGEST}")
count_or_none = number(int, 0, LARGEST, f"a whole number from 0 to {LARGEST}")
seed = number(int, 0, 2**32 - 1, "a whole number from 0 to 4294967295")
positive = number(float, sys.float_info.min, sys.float_info.max, "a number above 0")
not_negative = number(float, 0, sys.float_info.max, "a number from 0")
fraction = number(float, 0, 1, "a number from 0 to 1")
ratio = number(float, 0, math.nextafter(1, 0), "a number from 0 to below 1")


def path(text: str) -> Path:
    """A type of option: a file or folder; an empty one would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file or folder, '.' for this one")
    found = Path(text).expanduser()
    try:
        os.stat(found)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}… is too long a name") from error
    return found


def resolved_path(text: str) -> Path:
    """A `path` that does not depend on the current folder."""
    return path(text).resolve()


def column_names(text: str) -> str:
    """A type of option: IMAGE=LABEL, the headings of two columns."""
    image, *labels = text.split("=")
    if not image.strip() or len(labels) != 1 or labels[0].strip() in ("", image):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not IMAGE=LABEL, two headings such as path=class"
        )
    return text


def add_options(
    group: argparse._ActionsContainer, options: Mapping[tuple[Any, ...], str], **more: Any
) -> None:
    """Add options from a table: (name, kind, default, metavar) -> help.

    A kind is a type; or choices, of which the first is the default where none is given; or `bool`
    for a switch. `more`: further settings of all of them.
    """
    for (name, kind, *rest), words in options.items():
        settings: dict[str, Any] = {"type": kind}
        if kind is bool:
            settings = {"action": "store_true"}
        elif isinstance(kind, tuple):
            settings = {"type": type(kind[0]), "choices": kind, "default": kind[0]}
        settings |= dict(zip(("default", "metavar"), rest, strict=False))
        group.add_argument(f"--{name}", help=words, **settings, **more)
