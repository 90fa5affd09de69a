"""One page on which a person reviews suspect labels and takes the corrected manifest away."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.manifest import FILE_NAME, Manifest

SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class Suspect(NamedTuple):
    """An image on the page."""

    file_name: str  # as in the manifest
    given: str  # class name
    suggested: str  # class name; may equal `given`
    score: float  # 0 (label surely wrong) to 1
    flagged: bool
    thumbnail: bytes  # a PNG or JPEG file
    link: str = ""  # URI of the original, from the page's folder or absolute
    split: str = ""  # test or val; "" for an image to train on


def review_page(
    title: str,
    manifest: Manifest,
    suspects: Sequence[Suspect],
    class_names: Sequence[str],
    key: str,
    examples: Mapping[str, Sequence[bytes]] = MappingProxyType({}),
    same: Sequence[Sequence[int]] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page, self-contained: the manifest and all thumbnails are in it.

    `suspects`: most suspect first. `class_names`: what a label can be changed to. `key`: names the
    run; under it the browser keeps the decisions. `examples`: thumbnails by class name. `same`:
    groups of rows of the manifest whose images are identical. `notes`: lines for the head. Raises
    ValueError for a suspect that is not in the manifest, whose label is no class, or whose
    thumbnail is neither PNG nor JPEG.
    """
    rows = set(manifest.cells(FILE_NAME))
    classes = set(class_names)
    for each in suspects:
        if each.file_name not in rows:
            raise ValueError(f"suspect {each.file_name!r} is not in the manifest")
        for label in (each.given, each.suggested):
            if label not in classes:
                raise ValueError(f"suspect {each.file_name!r}: no class {label!r}; name it in all")
    data = {
        "title": title,
        "key": key,
        "class_names": list(class_names),
        "manifest": manifest._asdict(),
        "suspects": [_plain(each) for each in suspects],
        "examples": [[_uri(each, name) for each in examples.get(name, ())] for name in class_names],
        "same": [list(group) for group in same],
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(data=_island(data), notes=notes)


def _plain(suspect: Suspect) -> dict[str, Any]:
    """A suspect as JSON can hold it, the thumbnail as a data URI."""
    uri = _uri(suspect.thumbnail, suspect.file_name)
    plain = suspect._replace(
        score=float(suspect.score), flagged=bool(suspect.flagged), thumbnail=uri
    )
    return plain._asdict()


def _uri(thumbnail: bytes, name: str) -> str:
    """A thumbnail as a data URI; `name`: what it is of."""
    kind = next((SIGNATURES[each] for each in SIGNATURES if thumbnail.startswith(each)), None)
    if kind is None:
        raise ValueError(f"suspect {name!r}: its thumbnail is neither PNG nor JPEG")
    return f"data:{kind};base64,{base64.b64encode(thumbnail).decode()}"


def _island(data: object) -> str:
    """JSON in ASCII that nothing in it can end early inside a script element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
