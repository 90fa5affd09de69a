"""Is this Python 3.10 or newer with all that the files require? run.sh asks; needs no package.

    python utils/has_packages.py requirements.txt …

Each line of the files is "name>=version", "name==version" or a comment. Exit status 0 where all is
there, else 1.
"""

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version


def numbers(text: str) -> list[int]:
    """The first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", text)][:2]


def installed(name: str) -> str:
    """The version of a package that is installed; "" where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def is_there(line: str) -> bool:
    """Whether what a line asks is installed; raises ValueError for another kind of line."""
    found = re.fullmatch(r"([\w-]+)([>=]=)(\S+)\s*", line)
    if not found:
        raise ValueError(f"not name>=version: {line!r}")
    name, sign, wanted = found.groups()
    if not (there := installed(name)):
        return False
    return there == wanted if sign == "==" else numbers(there) >= numbers(wanted)


def main(files: list[str]) -> bool:
    """Whether all is there."""
    if sys.hexversion < 0x030A0000:
        return False
    for file in files:
        with open(file, encoding="utf-8") as lines:
            if not all(is_there(line) for line in lines if line.strip() and line[0] != "#"):
                return False
    import_module("torchvision")  # also tells whether it fits the torch that is there
    return True


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
