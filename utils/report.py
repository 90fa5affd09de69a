"""The results as one page: no scripts, nothing from elsewhere, pictures inside the file.

All text that comes from files passes through `escape`.
"""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from utils.published import ACCURACY_STATISTIC, F1_STATISTIC, RERUNS, published_rows

PICTURE_CAPTIONS = {
    "tipping_point.png": "The student's confidence; at its peak learning turns into memorising. "
    "Below it, how many of the labels that the pair agrees with in training are wrong.",
    "noise_split.png": "How far the pair agrees with each given label, the three cuts, and the "
    "four groups.",
    "training_curves.png": "Losses, accuracies and learning rate.",
    "detection_curve.png": "Precision over recall when labels are flagged from the lowest "
    "agreement on, and where each cut stands.",
    "suspects.png": "The most suspect labels. The whole list is suspects.csv in the run folder.",
    "transitions.png": "Which class is given for which, in % of the images given a label.",
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DOTS_PER_INCH = 150  # of the pictures
LEGIBLE, COMFORTABLE, WIDE = 80, 110, 8  # CSS pixels an inch at least and at most; inches
SHORT = 20  # letters of a cell that is not broken into lines
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 1280px;
  margin: 0 auto; padding: 0 16px 48px; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.2em; }
h2, h3 { border-bottom: 1px solid #bbb; padding-bottom: .2em; } h3 { font-size: 1.05rem; }
p, figcaption, li { max-width: 80ch; } figcaption, small, .note { color: #444; font-size: .875rem; }
a { color: #034b8a; }
.scroll { overflow-x: auto; }
.beside { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start; }
.ours { flex: 3 1 760px; min-width: 0; } .published { flex: 2 1 400px; min-width: 0; }
table { border-collapse: collapse; font-size: .8125rem; overflow-wrap: normal; }
.caption { font-size: .875rem; font-weight: 600; margin: 8px 0 4px; }
th, td { text-align: left; padding: 4px 8px; border-bottom: 1px solid #ddd; vertical-align: top; }
thead th { border-bottom: 2px solid #555; vertical-align: bottom; }
td { font-variant-numeric: tabular-nums; } td.short { white-space: nowrap; }
.facts th { font-weight: 600; width: 30%; min-width: 7em; } .facts td { overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 580px), 1fr));
  gap: 24px; align-items: start; margin: 16px 0; }
figure { margin: 0; min-width: 0; } figure.wide { grid-column: 1 / -1; }
img { display: block; width: 100%; height: auto; }
summary { cursor: pointer; }
"""


class LabelSet(NamedTuple):
    """All runs on one label set, and the table over their seeds."""

    dataset: str
    noise_type: str
    rows: list[list[str]]  # heading and rows
    runs: list[dict[str, Any]]  # by file name, with "folder" and "setting"


def as_table(rows: Sequence[Sequence[Any]], caption: str) -> str:
    """Heading and rows as a table that scrolls inside its own box; short cells stay whole."""
    head, *body = [[escape(str(cell)) for cell in row] for row in rows]
    headings = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = (
        "".join(f"<td{' class=short' if len(cell) < SHORT else ''}>{cell}</td>" for cell in row)
        for row in body
    )
    rest = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<p class="caption">{escape(caption)}</p><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{headings}</tr></thead>\n<tbody>{rest}</tbody></table></div>"
    )


def picture(path: Path, caption: str) -> str:
    """A PNG inside the page, no smaller than its text can be read; ValueError for another file."""
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE) or len(content) < 24:
        raise ValueError(f"{path}: not a PNG picture; draw it again with python -m utils.plots")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    inches = width / DOTS_PER_INCH
    bounds = f"min-width:{inches * LEGIBLE:.0f}px;max-width:{inches * COMFORTABLE:.0f}px"
    data = base64.b64encode(content).decode()
    return (
        f'<figure{" class=wide" if inches > WIDE else ""}><div class="scroll" tabindex="0">'
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'style="{bounds}" alt="{escape(path.stem.replace("_", " "))}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def facts(run: dict[str, Any]) -> str:
    """What a run was made with, as a table of two columns."""
    made = run["args.json"]
    training, timing = run.get("training.json", {}), run.get("timing.json", {})
    tipping = training.get("tipping_point")
    versions = made.get("versions")
    rows = {
        "departs from the defaults in": run["setting"] or "nothing",
        "tipping point": "none" if tipping is None else f"epoch {tipping}",
        "noise rate": noise_rate(training),
        "device": made.get("device", "-"),
        "precision": made.get("precision", "-"),
        "compiled": {True: "yes", False: "no"}.get(made.get("compiled"), "-"),
        "wall time": duration(timing.get("wall_seconds")),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items())
        if isinstance(versions, dict)
        else "-",
        "commit": made.get("commit") or "-",
    }
    if made["options"]["method"] == "ce":
        del rows["tipping point"], rows["noise rate"]
    elif training.get("guess"):
        rows["tipping point"] = "none came: the detection result is a guess"
    return two_columns(rows)


def noise_rate(training: dict[str, Any]) -> str:
    """What the split says of the labels, and how many really are wrong."""
    estimated, true = training.get("estimated_noise_rate"), training.get("true_noise_rate")
    if estimated is None or true is None:
        return "-"
    return f"{estimated:.1%} by the share below the threshold, {true:.1%} by the true labels"


def two_columns(rows: dict[str, Any]) -> str:
    """Names and values as a table."""
    lines = (
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f'<div class="scroll" tabindex="0"><table class="facts">{"".join(lines)}</table></div>'


def duration(seconds: Any) -> str:
    """Seconds in words, "-" for what is no number."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def run_section(number: int, run: dict[str, Any]) -> str:
    """One run: what it was made with, its pictures, all of its options folded away."""
    folder: Path = run["folder"]
    pictures = [
        picture(folder / name, caption)
        for name, caption in PICTURE_CAPTIONS.items()
        if (folder / name).is_file()
    ]
    shown = f'<div class="pictures">{"".join(pictures)}</div>'
    if not pictures:
        shown = f"<p>No pictures yet: <code>python -m utils.plots {escape(str(folder))}</code></p>"
    options = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in run["args.json"]["options"].items()
    }
    return (
        f'<section id="run-{number}"><h3>{escape(folder.name)}</h3>{facts(run)}{shown}'
        f"<details><summary>All options</summary>{two_columns(options)}</details></section>"
    )


def label_set_section(part: LabelSet) -> str:
    """The table over seeds, and beside it what others published."""
    title = f"{part.dataset}, labels {part.noise_type}"
    ours = as_table(part.rows, "Ours: bkd is the method, ce its baseline (plain cross-entropy)")
    theirs = published_rows(part.dataset, part.noise_type)
    if theirs:
        beside = (
            f"{as_table(theirs, 'Published by others')}"
            f'<p class="note">Published accuracy: {escape(ACCURACY_STATISTIC)}. That is not the '
            "statistic of our column of the last epoch, where no test image chooses the epoch. "
            f"Published F1: {escape(F1_STATISTIC)}. {escape(RERUNS)}</p>"
        )
    else:
        beside = '<p class="note">No published figures for this label set.</p>'
    return (
        f'<section><h2>{escape(title)}</h2><div class="beside"><div class="ours">{ours}</div>'
        f'<div class="published">{beside}</div></div></section>'
    )


def page(parts: Sequence[LabelSet], footnote: str) -> str:
    """The whole page. Raises ValueError or OSError naming a picture that cannot be read."""
    runs = [run for part in parts for run in part.runs]
    sections = [label_set_section(part) for part in parts]
    links = "".join(
        f'<li><a href="#run-{number}">{escape(run["folder"].name)}</a></li>'
        for number, run in enumerate(runs)
    )
    details = "\n".join(run_section(number, run) for number, run in enumerate(runs))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Blind Knowledge Distillation: results</title><style>{STYLE}</style></head><body>
<h1>Blind Knowledge Distillation: results</h1>
<p>Learning from images of which many carry a wrong label, and finding out which ones do.</p>
<p class="note">{escape(footnote)}</p>
{"".join(sections)}
<h2>Runs</h2><ul>{links}</ul>
{details}
</body></html>
"""
