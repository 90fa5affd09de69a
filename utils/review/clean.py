"""The corrected manifest of a run on own images: `python -m utils.clean RUN --take flagged`.

Labels are taken over from the run's suggestions, or from decisions.csv as review.html writes it;
the manifest keeps its form, with a column `changed_from`. The images stay as they are.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.console import say
from utils.files import check_replaceable, write_whole
from utils.json_lines import ENDINGS
from utils.manifest import (
    CHANGED_FROM,
    FILE_NAME,
    LABEL,
    METADATA,
    Manifest,
    as_file,
    corrected,
    nfc,
    read_manifest,
)
from utils.options.parser import OneLineParser
from utils.options.values import count, path
from utils.review.tree import check_tree, write_tree
from utils.run_folder.folder import RunFolder

FLAGGED, TOP = "flagged", "top"
GIVEN, SUGGESTED, DECISION = "given_label", "suggested_label", "decision"  # columns
SCORE, SUGGESTED_SCORE = "score", "suggested_score"  # probabilities to be right
KEEP, CHANGE, DROP = "keep", "change", "drop"


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(prog="utils.clean", description=__doc__)
    parser.add_argument("run", type=path, help="run folder of --dataset folder")
    parser.add_argument(
        "--take",
        nargs="+",
        required=True,
        metavar="WHAT",
        help="flagged: all labels that are flagged as wrong; top NUMBER: the most suspect ones; or "
        "a file decisions.csv with the columns file_name, decision (keep, change, drop) and label",
    )
    parser.add_argument(
        "--drop",
        action="store_true",
        help="leave the images out instead of taking the labels that are suggested",
    )
    parser.add_argument("--out", type=path, metavar="FILE", help="corrected manifest to write")
    parser.add_argument(
        "--tree",
        type=path,
        metavar="FOLDER",
        help="new or empty folder for a folder of images for each class, with splits below train, "
        "test and val: hard links, which share their content with the images, or copies on another "
        "file system",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="write over whatever file --out is, unless it is one of the run",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the corrected manifest and say what was changed; the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        folder = RunFolder(args.run)
        if not folder.suspects.exists() or not folder.manifest.exists():
            raise FileNotFoundError(
                f"{folder}: has no suspects.csv with a manifest.csv; name the folder of a run with "
                "--dataset folder"
            )
        folder.check_finished()
        manifest = read_manifest(folder.manifest, columns=folder.options().get("columns"))
        decisions = _decisions(args, folder, manifest)
        result = corrected(manifest, decisions)
        _check_out(args, folder, manifest)
        _check_tree(args, folder, result)
        if args.out:
            write_whole(args.out, as_file(result))
        tree = write_tree(args.tree, result, _root(folder)) if args.tree else ""
    except (ValueError, OSError, argparse.ArgumentTypeError) as error:
        parser.error(error)
    dropped = len(manifest.rows) - len(result.rows)
    names, labels = manifest.cells(FILE_NAME), manifest.cells(LABEL)
    pairs = ((old, decisions.get(name, old)) for name, old in zip(names, labels, strict=True))
    changes = Counter((old, new) for old, new in pairs if new is not None and nfc(new) != nfc(old))
    if tree:
        say(tree)
    place = args.out or args.tree
    say(
        f"{place}: {sum(changes.values())} labels changed, {dropped} images dropped, "
        f"{len(result.rows)} rows left"
    )
    for (old, new), number in changes.most_common(10):
        say(f"{number:7}  {old} -> {new}")
    return 0


def _check_out(args: argparse.Namespace, folder: RunFolder, manifest: Manifest) -> None:
    """Raise OSError or ValueError where --out names another form, or what is not to be replaced."""
    if not args.out:
        return
    inputs = [folder.manifest, Path(folder.options().get("manifest") or folder.manifest)]
    images = folder.options().get("images")
    inputs += [Path(images, name) for name in METADATA if images]
    inputs += [] if args.take[0] in (FLAGGED, TOP) else [path(args.take[0])]
    same = args.out.exists() and any(each.exists() and args.out.samefile(each) for each in inputs)
    of_the_run = folder.path.resolve() in args.out.resolve().parents
    if same or (of_the_run and args.out.stem == folder.manifest.stem):
        raise ValueError(f"--out {args.out}: is what the labels are read from; choose another")
    check_replaceable(args.out, CHANGED_FROM, args.force and not of_the_run)
    lines, ending = manifest.json_lines, args.out.suffix.lower()
    if ending in ((".csv", ".tsv") if lines else ENDINGS):
        kept = "JSON lines" if lines else "CSV"
        raise ValueError(f"--out {args.out}: the manifest keeps its form, {kept}; name it so")


def _root(folder: RunFolder) -> Path:
    """What the file names of the run's manifest are relative to."""
    options = folder.options()
    if not (place := options.get("images") or options.get("manifest")):
        raise ValueError(f"{folder.args}: names neither images nor manifest; is it of another run?")
    return Path(place) if options.get("images") else Path(place).parent


def _check_tree(args: argparse.Namespace, folder: RunFolder, manifest: Manifest) -> None:
    """Raise OSError or ValueError where the class folders cannot be made at --tree."""
    if not args.tree:
        if not args.out:
            raise ValueError("give --out FILE, --tree FOLDER, or both")
        return
    class_folders = not folder.options().get("manifest")
    check_tree(args.tree, manifest, _root(folder) if class_folders else None)


def _decisions(
    args: argparse.Namespace, folder: RunFolder, manifest: Manifest
) -> dict[str, str | None]:
    """File name -> label, None for an image to drop; raises ValueError naming what is wrong."""
    kind, *number = args.take
    if kind not in (FLAGGED, TOP) or (kind == FLAGGED and number):
        if number:
            raise ValueError(f"--take {' '.join(args.take)}: give flagged, top NUMBER, or one file")
        if args.drop:
            raise ValueError("--drop: a file of decisions tells by itself what is dropped")
        return _decided(path(kind), manifest)
    suspects = _suspects(folder, manifest)
    names, suggested = suspects.cells(FILE_NAME), suspects.cells(SUGGESTED)
    taken = [row for row, flag in enumerate(suspects.cells(FLAGGED)) if flag == "1"]
    if kind == FLAGGED:
        _check_worth_it(suspects, taken)
    if kind == TOP:
        try:
            taken = list(range(min(len(names), count(*number))))
        except (TypeError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"--take {' '.join(args.take)}: give top and a number") from error
    return {names[row]: None if args.drop else suggested[row] for row in taken}


def _suspects(folder: RunFolder, manifest: Manifest) -> Manifest:
    """The run's suspects.csv; raises ValueError where a row is not of an image of the manifest."""
    suspects = read_manifest(folder.suspects, (FILE_NAME, GIVEN, SUGGESTED, SCORE, FLAGGED))
    there = set(zip(manifest.cells(FILE_NAME), map(nfc, manifest.cells(LABEL)), strict=True))
    listed = zip(suspects.cells(FILE_NAME), map(nfc, suspects.cells(GIVEN)), strict=True)
    if foreign := [f"row {k} {pair}" for k, pair in enumerate(listed, 1) if pair not in there]:
        hint = "is one of the two files of another run, or cut off?"
        raise ValueError(f"{folder.suspects}: {foreign[0]} is not in the run's manifest; {hint}")
    return suspects


def _check_worth_it(suspects: Manifest, taken: Sequence[int]) -> None:
    """Say what the flagged suggestions mend and break; raise ValueError where nothing is won."""
    hint = "review them in review.html, or take decisions.csv or top NUMBER"
    if not taken:
        raise ValueError(f"--take {FLAGGED}: no label is flagged; {hint}")
    scores, suggested = (suspects.cells(column) for column in (SCORE, SUGGESTED_SCORE))
    if not all(suggested[row] for row in taken):
        raise ValueError(
            f"--take {FLAGGED}: the scores of this run are no probabilities (those of --folds "
            f"with --detection posterior are): nobody knows whether it would help; {hint}"
        )
    mended, broken = (sum(float(each[row]) for row in taken) for each in (suggested, scores))
    words = f"about {mended:.0f} labels are mended and {broken:.0f} right ones broken"
    if mended <= broken:
        raise ValueError(f"--take {FLAGGED}: {words}; {hint}")
    say(f"expected: {words}")


def _decided(file: Path, manifest: Manifest) -> dict[str, str | None]:
    """The decisions of a file; every name must be in the manifest, every label one of its own."""
    table = read_manifest(file, (FILE_NAME, DECISION, LABEL))
    names = manifest.cells(FILE_NAME)
    written = {nfc(name): name for name in names} | {name: name for name in names}
    labels = set(map(nfc, manifest.cells(LABEL)))
    decisions: dict[str, str | None] = {}
    rows = zip(*(table.cells(column) for column in (FILE_NAME, DECISION, LABEL)), strict=True)
    for number, (name, decision, label) in enumerate(rows, start=1):
        name = written.get(name, written.get(nfc(name), name))
        if name not in written:
            raise ValueError(f"{file}: row {number}: {name!r} is not in the run's manifest")
        if decision == CHANGE and nfc(label) not in labels:
            raise ValueError(f"{file}: row {number}: no image has the label {label!r}")
        if decision not in (KEEP, CHANGE, DROP):
            raise ValueError(
                f"{file}: row {number}: decision {decision!r}; it should be keep, change or drop"
            )
        decisions.pop(name, None)  # as on the page, the last row of an image counts
        if decision != KEEP:
            decisions[name] = label if decision == CHANGE else None
    return decisions
