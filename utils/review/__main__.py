"""The review page of any list of suspects: `python -m utils.review --suspects FILE --images DIR`.

The list is CSV or JSON lines with the columns file_name, given_label, suggested_label, score (the
lower, the more suspect) and perhaps flagged (1 or 0), such as suspects.csv of a run. The page
exports its labels, corrected, as a manifest.
"""

import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.console import say
from utils.files import check_replaceable, write_text
from utils.manifest import FILE_NAME, Manifest, as_file, file_at, nfc, of_files, read_manifest
from utils.options.parser import OneLineParser
from utils.options.values import path
from utils.pictures import thumbnails
from utils.review.clean import FLAGGED, GIVEN, SCORE, SUGGESTED
from utils.review.page import Suspect, review_page
from utils.run_folder.folder import RunFolder
from utils.run_folder.suspects import SUSPECTS_REVIEWED, links

PAGE_MARK = "<title>Review of suspect labels</title>"
WARNINGS_SAID = 10


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(prog="utils.review", description=__doc__)
    parser.add_argument(
        "--suspects", type=path, required=True, metavar="FILE", help="list of suspects"
    )
    parser.add_argument(
        "--images",
        type=path,
        required=True,
        metavar="FOLDER",
        help="folder that the file names are relative to",
    )
    parser.add_argument(
        "--out", type=path, default=Path("review.html"), metavar="FILE", help="page to write"
    )
    parser.add_argument(
        "--force", action="store_true", help="write over whatever file --out is, but the list"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say what is on it; the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        if not args.images.is_dir():
            raise FileNotFoundError(f"--images {args.images}: no such folder")
        listed = read_suspects(args.suspects)
        if args.out.exists() and args.out.samefile(args.suspects):
            raise ValueError(f"--out {args.out}: is the list of suspects; choose another")
        run = RunFolder(args.out.parent)
        if run.args.exists() and run.review.exists() and args.out.samefile(run.review):
            raise ValueError(f"--out {args.out}: is the page of a run; choose another")
        check_replaceable(args.out, PAGE_MARK, args.force)
        shown = with_thumbnails(listed[:SUSPECTS_REVIEWED], args.images, args.out.parent)
        manifest = of_files((each.file_name, each.given, "") for each in listed)
        write_text(args.out, page_of(args.suspects, args.out, manifest, shown, listed))
    except (ValueError, OSError) as error:
        parser.error(error)
    say(f"{args.out}: the {len(shown)} most suspect of {len(listed)} labels, to be reviewed")
    return 0


def page_of(
    file: Path, out: Path, manifest: Manifest, shown: Sequence[Suspect], listed: Sequence[Suspect]
) -> str:
    """The page for the place `out`, of the listed suspects those that can be shown."""
    classes = sorted({label for each in listed for label in (each.given, each.suggested)})
    key = hashlib.sha256(as_file(manifest) + bytes(out.resolve())).hexdigest()
    notes = [f"The list has {len(listed)} labels; the manifest that you download has no others."]
    return review_page(file.name, manifest, shown, classes, key, notes=notes)


def read_suspects(file: Path) -> list[Suspect]:
    """The suspects of a list without their thumbnails, the most suspect first, each image once.

    A label without a suggestion is its own. Raises OSError or ValueError naming file and row.
    """
    table = read_manifest(file, (FILE_NAME, GIVEN, SUGGESTED, SCORE))
    columns = map(table.cells, (FILE_NAME, GIVEN, SUGGESTED, SCORE, FLAGGED))
    found: dict[str, Suspect] = {}
    for row, (name, given, suggested, score, flag) in enumerate(zip(*columns, strict=True)):
        there = f"{file}: row {row + 1} ({name!r})"
        if not table.whole(row):
            cells = len(table.rows[row])
            raise ValueError(f"{there} has {cells} cells, not {len(table.columns)}")
        if not name.strip() or not given.strip():
            raise ValueError(f"{there} has no {GIVEN if name.strip() else FILE_NAME}")
        if name in found:
            raise ValueError(f"{there} is listed before; list each image once")
        try:
            number = float(score)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{there} has the score {score!r}; a number is needed")
        flagged = flag.strip().casefold() in ("1", "1.0", "true")
        labels = nfc(given), nfc(suggested if suggested.strip() else given)
        found[name] = Suspect(name, *labels, number, flagged, b"")
    if not found:
        raise ValueError(f"{file}: lists no image")
    return sorted(found.values(), key=lambda each: each.score)


def with_thumbnails(suspects: Sequence[Suspect], images: Path, folder: Path) -> list[Suspect]:
    """Those whose images can be read, ready for a page in that folder; warns of the others.

    Raises OSError where none can be read.
    """
    paths = [file_at(images, each.file_name) for each in suspects]
    pictures = thumbnails(paths)
    pairs = zip(paths, pictures, strict=True)
    unread = [f"{each}: {why}" for each, why in pairs if isinstance(why, str)]
    if len(unread) == len(suspects):
        raise FileNotFoundError(f"no image can be read; {unread[0]}; check --images")
    for line in unread[:WARNINGS_SAID]:
        say(f"warning: {line}")
    if (more := len(unread) - WARNINGS_SAID) > 0:
        say(f"warning: and {more} more images cannot be read")
    rows = zip(suspects, pictures, links(paths, folder), strict=True)
    return [
        each._replace(thumbnail=picture, link=link)
        for each, picture, link in rows
        if isinstance(picture, bytes)
    ]


if __name__ == "__main__":
    sys.exit(main())
