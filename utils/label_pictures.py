"""Pictures of the labels: the most suspect images, and which class is taken for which."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.figures import (
    INK,
    MEDIUM,
    MIDDLE,
    SMALL,
    WRONG,
    LeftOut,
    RunFigures,
    new_figure,
    plain,
)

ACROSS = 8  # images in a row
LONG = 9  # letters of a name that fill the width of an image
CAPTION = 0.62  # height of a caption, in images
NUMBERED = 20  # classes; with more, cells are too small for numbers and names
MOST_FREQUENT = 12  # mix-ups that are listed where names do not fit


def draw_suspects(run: RunFigures) -> Any:
    """The most suspect images: given label, what the pair says, the truth; raises LeftOut."""
    images, places, names = run.need("suspect_images", "suspect_index", "class_names")
    index, label, prediction = run.need("index", "label", "prediction")
    true_label = run.arrays.get("true_label")
    if not len(images):
        raise LeftOut("no image was scored")
    rows = np.searchsorted(index, places)  # index rises
    deep = -(-len(images) // ACROSS)
    title = f"{run.name}: the {len(images)} most suspect labels"
    figure = new_figure(9, 0.8 + deep * (1 + CAPTION), title)
    axes = figure.subplots()
    short = "net" if run.baseline else "pair"
    size = SMALL - 0.5 * min(3, max(0, max(map(len, names)) - LONG))
    for place, (image, row) in enumerate(zip(images, rows, strict=True)):
        x, y = place % ACROSS * 1.12, place // ACROSS * (1 + CAPTION)
        axes.imshow(
            image[..., 0] if image.shape[-1] == 1 else image,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(x, x + 1, y + 1, y),
            interpolation="nearest",
        )
        words = f"given: {names[label[row]]}\n{short}: {names[prediction[row]]}"
        alarm = False
        if true_label is not None:
            words += f"\ntrue: {names[true_label[row]]}"
            alarm = true_label[row] == label[row]
        weight = "bold" if alarm else "normal"
        axes.text(x, y + 1.04, words, fontsize=size, va="top", weight=weight, parse_math=False)
        if alarm:
            axes.add_patch(_frame(x, y))
    axes.set_xlim(-0.03, ACROSS * 1.12 - 0.09)
    axes.set_ylim(deep * (1 + CAPTION), -0.03)
    axes.set_aspect("equal")
    axes.axis("off")
    if true_label is not None:
        alarms = int((true_label[rows] == label[rows]).sum())
        note = f"false alarms, the given label being right: {alarms or 'none'}"
        note += " (bold, framed)" * bool(alarms)
        figure.supxlabel(note, fontsize=MEDIUM)
    return figure


def _frame(x: float, y: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, fill=False, edgecolor=WRONG["facecolor"], lw=3, ls="--")


def draw_transitions(run: RunFigures) -> Any:
    """Given against predicted, and where known against true labels; raises LeftOut."""
    label, prediction, names = run.need("label", "prediction", "class_names")
    others = [(f"what the {run.judge} says", prediction)]
    if "true_label" in run.arrays:
        others.append(("true label", run.arrays["true_label"]))
    few = len(names) <= NUMBERED
    title = f"{run.name}: given labels"
    figure = new_figure(5.2 * len(others), 5 if few else 7.2, title)
    panels = figure.subplots(1 if few else 2, len(others), squeeze=False)
    for column, (name, other) in enumerate(others):
        counts = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(counts, (label, other), 1)
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)  # [C, C], rows 100
        image = _draw_matrix(panels[0, column], shares, names, name, few)
        if not few:
            _list_mix_ups(panels[1, column], counts, names, name)
    bar = figure.colorbar(image, ax=panels[0].tolist(), shrink=0.8)
    bar.set_label("% of the images given that label", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def _draw_matrix(
    axes: Any, shares: NDArray[np.float64], names: NDArray[np.str_], other: str, few: bool
) -> Any:
    from matplotlib.colors import PowerNorm

    # Of many classes each has few images in another one's cell: there the light greys spread out.
    norm = PowerNorm(1 if few else 0.5, vmin=0, vmax=100)
    image = axes.imshow(shares, cmap="Greys", norm=norm, interpolation="nearest")
    axes.set_title(f"given label (row) and {other} (column)", fontsize=MEDIUM, loc="left")
    axes.set_ylabel("given label" if few else "given label (class number)", fontsize=MEDIUM)
    axes.set_xlabel(other if few else f"{other} (class number)", fontsize=MEDIUM)
    axes.tick_params(labelsize=SMALL)
    if few:
        turned = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 2 else {}
        axes.set_xticks(range(len(names)), names, parse_math=False, **turned)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                ink = "white" if share > 55 else INK
                words = f"{share:.0f}"
                axes.text(column, row, words, ha="center", va="center", fontsize=SMALL, color=ink)
    return image


def _list_mix_ups(
    axes: Any, counts: NDArray[np.int64], names: NDArray[np.str_], other_name: str
) -> None:
    """Bars for the most frequent pairs of two classes; nothing where there is none."""
    apart = counts.copy()
    np.fill_diagonal(apart, 0)
    order = np.argsort(-apart, axis=None, kind="stable")[:MOST_FREQUENT]
    order = order[apart.ravel()[order] > 0]
    plain(axes, "images", "", f"most frequent: given → {other_name}").grid(axis="y", visible=False)
    given, other = np.unravel_index(order, apart.shape)
    pairs = [f"{names[a]} → {names[b]}" for a, b in zip(given, other, strict=True)]
    axes.barh(range(len(pairs)), apart[given, other], color=MIDDLE)
    axes.set_yticks(range(len(pairs)), pairs, fontsize=SMALL, parse_math=False)
    axes.invert_yaxis()
