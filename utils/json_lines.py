"""JSON lines, an object a line, as a table: a cell is a value as it is written there."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

ENDINGS = (".jsonl", ".ndjson", ".json")
BLANK = re.compile(r"[ \t\r\n]*")
NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # but for bytes that are no UTF-8
DECODER = json.JSONDecoder()


def text_of(cell: str) -> str:
    """What a cell says: a text itself, "" where there is no value, else the value as written."""
    if cell.startswith('"'):
        return json.loads(cell)
    return "" if cell == "null" else cell


def cell_of(text: str) -> str:
    """A text as a cell."""
    return json.dumps(text, ensure_ascii=False)


def read_lines(path: Path, text: str, needed: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The keys of all lines, and the cells of each line, "" for a key that it lacks.

    Raises ValueError, naming file and line, for a line that is no object, a key given twice, and
    values of `needed` keys that are lists or objects or not all of one kind.
    """
    objects = []
    first: dict[str, tuple[int, str]] = {}  # needed key -> line and kind of its first value
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            objects.append(_members(line))
            for key in needed:
                if (kind := _kind(objects[-1].get(key, "null"))) is None:
                    continue
                if kind == "text" and NO_TEXT.search(text_of(objects[-1][key])):
                    raise ValueError(f"its {key!r} has a NUL or half a character; write it as text")
                if kind == "list or object":
                    raise ValueError(f"its {key!r} is a {kind}; a text or number is needed")
                there, former = first.setdefault(key, (number, kind))
                if kind != former:
                    reason = f"its {key!r} is a {kind}, and a {former} in line {there}"
                    raise ValueError(f"{reason}; write all in one way")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number}: {str(error).splitlines()[0]}") from error
    keys = list(dict.fromkeys(key for each in objects for key in each))
    return keys, [[each.get(key, "") for key in keys] for each in objects]


def line_text(keys: Sequence[str], cells: Sequence[str], separator: str) -> str:
    """A line of the file; `separator`: a comma, followed by a blank where colons are too."""
    pairs = zip(keys, cells, strict=True)
    colon = f":{separator[1:]}"
    return f"{{{separator.join(f'{cell_of(key)}{colon}{cell}' for key, cell in pairs if cell)}}}"


def separator_of(text: str) -> str:
    """How the first line separates its values."""
    line = text.lstrip().split("\n", 1)[0].strip()
    members = _members(line)
    return "," if line_text([*members], [*members.values()], ",") == line else ", "


def _members(line: str) -> dict[str, str]:
    """Key -> value as written; raises ValueError where the line is no object."""
    try:
        whole = json.loads(line)
    except ValueError as error:
        raise ValueError(f"no whole JSON object ({error}); needed is one object a line") from error
    if not isinstance(whole, dict):
        raise ValueError("is no JSON object; needed is one object a line")
    found: dict[str, str] = {}
    place = BLANK.match(line, line.index("{") + 1).end()
    while line[place] != "}":
        key, place = DECODER.raw_decode(line, place)
        start = BLANK.match(line, line.index(":", place) + 1).end()
        _, place = DECODER.raw_decode(line, start)
        if key in found:
            raise ValueError(f"has the key {key!r} twice")
        found[key] = line[start:place]
        place = BLANK.match(line, place).end()
        place = BLANK.match(line, place + 1).end() if line[place] == "," else place
    return found


def _kind(cell: str) -> str | None:
    """Which kind of value a cell is; None where it is none."""
    if cell == "null":
        return None
    kinds = {'"': "text", "[": "list or object", "{": "list or object"}
    return (kinds | dict.fromkeys("tf", "true or false")).get(cell[0], "number")
