"""Plots of the labels: the most suspect images, and which class is mistaken for which."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.plots.run_data import LeftOut, RunData
from utils.plots.style import INK, MEDIUM, MIDDLE, RED, SMALL, Axes, Figure, new_figure, plain
from utils.run_folder.predictions import Array

PER_ROW = 8  # images
STEP = 1.12  # from one image to the next, in images
CAPTION = 0.62  # height of a caption, in images
LONG_NAME = 9  # letters that fill the width of an image
FEW_CLASSES = 20  # with more, the cells are too small for numbers and names
MISTAKES_LISTED = 12  # where the names do not fit


def draw_suspects(run: RunData) -> Figure:
    """The most suspect images with their given, predicted and true labels; raises LeftOut."""
    predictions = run.predicted()
    images, names, label = predictions.suspect_images, predictions.class_names, predictions.label
    prediction, true_label = predictions.chosen.prediction, predictions.true_label
    if images is None or not len(images):
        raise LeftOut("predictions.npz has no images")
    rows = np.searchsorted(predictions.index, predictions.suspect_index)  # index rises
    height = -(-len(images) // PER_ROW) * (1 + CAPTION)
    figure = new_figure(9, 0.8 + height, f"{run.name}: the {len(images)} most suspect labels")
    axes = figure.subplots()
    size = SMALL - 0.5 * min(3, max(0, max(map(len, names)) - LONG_NAME))
    whose = "net" if run.baseline else "pair"
    right = np.zeros(len(rows), dtype=bool) if true_label is None else (true_label == label)[rows]
    for place, (image, row) in enumerate(zip(images, rows, strict=True)):
        words = f"given: {names[label[row]]}\n{whose}: {names[prediction[row]]}"
        if true_label is not None:
            words += f"\ntrue: {names[true_label[row]]}"
        corner = place % PER_ROW * STEP, place // PER_ROW * (1 + CAPTION)
        _draw_suspect(axes, corner, image, words, size, framed=right[place])
    axes.set(xlim=(-0.03, PER_ROW * STEP - 0.09), ylim=(height, -0.03), aspect="equal")
    axes.axis("off")
    if true_label is not None:
        note = f"the given label is right: {right.sum() or 'none'}"
        figure.supxlabel(note + ", bold and framed" * bool(right.any()), fontsize=MEDIUM)
    return figure


def _draw_suspect(
    axes: Axes, corner: Sequence[float], image: Array, words: str, size: float, framed: bool
) -> None:
    """One image [height, width, channels] with its words, bold and framed if its label is right."""
    from matplotlib.patches import Rectangle

    x, y = corner
    look = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest"}
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(pixels, extent=(x, x + 1, y + 1, y), **look)
    weight = "bold" if framed else "normal"
    axes.text(x, y + 1.04, words, fontsize=size, va="top", weight=weight, parse_math=False)
    if framed:
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=RED, lw=3, ls="--"))


def draw_transitions(run: RunData) -> Figure:
    """Given against predicted, and where known against true labels; raises LeftOut."""
    from sklearn.metrics import confusion_matrix

    predictions = run.predicted()
    label, names, true_label = predictions.label, predictions.class_names, predictions.true_label
    name = "network's prediction" if run.baseline else "pair's prediction"
    others = [(name, predictions.chosen.prediction)]
    if true_label is not None:
        others.append(("true label", true_label))
    few = len(names) <= FEW_CLASSES
    figure = new_figure(5.2 * len(others), 5 if few else 7.2, f"{run.name}: given labels")
    panels = figure.subplots(1 if few else 2, len(others), squeeze=False)
    for column, (name, other) in enumerate(others):
        counts = confusion_matrix(label, other, labels=range(len(names)))  # [C, C]
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)  # rows sum to 100
        if few:
            mesh = _draw_matrix(panels[0, column], shares, "", name)
            _name_cells(panels[0, column], shares, names)
        else:
            mesh = _draw_matrix(panels[0, column], shares, " (class number)", name)
            _list_mistakes(panels[1, column], counts, names, name)
    bar = figure.colorbar(mesh, ax=panels[0].tolist(), shrink=0.8)
    bar.set_label("% of the images given that label", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def _draw_matrix(axes: Axes, shares: Array, unit: str, other_name: str) -> Any:
    """The shares [C, C] in gray: given label by the other one; returns matplotlib's image."""
    from matplotlib.colors import PowerNorm

    # Of many classes each has few images in another one's cell: there the light grays spread out.
    norm = PowerNorm(1 if len(shares) <= FEW_CLASSES else 0.5, vmin=0, vmax=100)
    axes.set_title(f"given label (row) and {other_name} (column)", fontsize=MEDIUM, loc="left")
    axes.set_ylabel(f"given label{unit}", fontsize=MEDIUM)
    axes.set_xlabel(f"{other_name}{unit}", fontsize=MEDIUM)
    axes.tick_params(labelsize=SMALL)
    return axes.imshow(shares, cmap="Greys", norm=norm, interpolation="nearest")


def _name_cells(axes: Axes, shares: Array, names: Array) -> None:
    """The classes' names along the axes, and the rounded share in each cell that has one."""
    turned = {"rotation": 45, "ha": "right"} if max(map(len, names)) > 2 else {}
    axes.set_xticks(range(len(names)), names, parse_math=False, **turned)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:
            style = {"ha": "center", "va": "center", "fontsize": SMALL}
            axes.text(column, row, f"{share:.0f}", color="white" if share > 55 else INK, **style)


def _list_mistakes(axes: Axes, counts: Array, names: Array, other_name: str) -> None:
    """Bars for the most frequent pairs of different classes in counts [C, C]."""
    apart = counts - np.diag(counts.diagonal())
    order = np.argsort(-apart, axis=None, kind="stable")[:MISTAKES_LISTED]
    order = order[apart.ravel()[order] > 0]
    plain(axes, "images", "", f"most frequent: given → {other_name}").grid(axis="y", visible=False)
    given, other = np.unravel_index(order, apart.shape)
    pairs = [f"{names[a]} → {names[b]}" for a, b in zip(given, other, strict=True)]
    axes.barh(range(len(pairs)), apart[given, other], color=MIDDLE)
    axes.set_yticks(range(len(pairs)), pairs, fontsize=SMALL, parse_math=False)
    axes.invert_yaxis()
