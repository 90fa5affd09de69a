"""The plots of a run, and the list of suspects."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

import blind_knowledge_dist_training as training
from data.digits import load_digits, noisy_digits
from models import noise_split
from tests.conftest import training_options
from tests.made_up_run import MadeUpRun, made_up_run, write_detection
from utils.files import read_arrays, write_arrays
from utils.plots.__main__ import main
from utils.plots.curves import draw_tipping_point, draw_training_curves
from utils.plots.draw import PLOTS, write_plots
from utils.plots.labels import draw_suspects, draw_transitions
from utils.plots.noise_split import draw_detection_curve, draw_noise_split
from utils.plots.run_data import LeftOut, read_run
from utils.plots.style import as_png
from utils.run_folder import session
from utils.run_folder.folder import RunFolder

NAMES = "tipping_point noise_split training_curves suspects transitions detection_curve"
ALL = [f"{name}.png" for name in NAMES.split()]
CURVES = {"tipping_point.png", "training_curves.png"}


def words_of(figure) -> str:
    """All text of a figure, a line each."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def left_out(folder: Path) -> dict[str, str]:
    """Which plots cannot be drawn, and why."""
    run, reasons = read_run(folder), {}
    for name, draw in PLOTS.items():
        try:
            draw(run)
        except LeftOut as reason:
            reasons[name] = str(reason)
    return reasons


def change_arrays(run: MadeUpRun, **arrays: np.ndarray | None) -> None:
    """Replace arrays of the run's predictions.npz, or remove them (None)."""
    path = RunFolder(run.folder).predictions
    arrays = read_arrays(path) | arrays
    write_arrays(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    """A finished run with 300 images scored, ten classes and twelve epochs."""
    return made_up_run(tmp_path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("classes", [10, 100])
def test_all_plots_are_drawn_whole_and_drawing_again_gives_the_same_bytes(
    tmp_path: Path, classes: int, capsys: pytest.CaptureFixture
):
    extra = {"agreed_wrong": ["5.5"] * 12, "vanished_classes": ["3 7 9"] + [""] * 11}
    folder = made_up_run(tmp_path, classes=classes, extra=extra).folder
    main([str(folder)])  # which prints the paths
    assert capsys.readouterr().out.splitlines() == [str(folder / name) for name in ALL]
    before = {name: (folder / name).read_bytes() for name in ALL}
    for name in ALL:
        pixels = imread(folder / name)[..., :3]
        height, width, _ = pixels.shape
        assert 900 <= width <= 1700 and 400 <= height <= 2200
        inked = (pixels.min(2) < 0.95).mean()
        assert 0.01 < inked < 0.8, f"{name} is blank or full"
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 1).all(), f"{name}: something is cut off at the edge"
    if classes == 10:
        write_plots(folder)
    assert before == {name: (folder / name).read_bytes() for name in ALL}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_baseline_has_neither_tipping_point_nor_groups(tmp_path: Path):
    folder = made_up_run(tmp_path, "--method", "ce").folder
    lines: list[str] = []
    written = write_plots(folder, lines.append)
    reasons = {
        "tipping_point.png": "the baseline has no student, and so no tipping point",
        "noise_split.png": "the baseline has neither groups nor cuts",
    }
    assert lines == [f"{folder / name} left out: {reason}" for name, reason in reasons.items()]
    assert [path.name for path in written] == [name for name in ALL if name not in reasons]
    run = read_run(folder)
    assert "net: class" in words_of(draw_suspects(run))
    assert "network's prediction" in words_of(draw_transitions(run))
    assert "predicted another class: F1" in words_of(draw_detection_curve(run))
    assert "cross-entropy" in words_of(draw_training_curves(run))


def test_before_the_split_there_are_only_curves(tmp_path: Path):
    folder = RunFolder(made_up_run(tmp_path, epochs=1).folder)
    folder.predictions.unlink()
    reasons = left_out(folder.path)
    assert set(reasons) == set(ALL) - CURVES
    assert set(reasons.values()) == {"nothing is split yet: there is no predictions.npz"}
    assert "tipping point: epoch" not in words_of(draw_tipping_point(read_run(folder.path)))
    folder.metrics.unlink()
    assert set(left_out(folder.path)) == set(ALL)


def test_arrays_that_a_run_lacks_leave_out_the_plots_that_need_them(run: MadeUpRun):
    change_arrays(run, class_names=None, true_label=None)
    reasons = left_out(run.folder)
    assert set(reasons) == {"suspects.png", "transitions.png", "detection_curve.png"}
    assert reasons["suspects.png"].endswith("does not hold class_names")
    assert reasons["detection_curve.png"].endswith("does not hold true_label")
    assert "% wrong" not in words_of(draw_noise_split(read_run(run.folder)))


def test_without_wrong_labels_there_is_nothing_to_detect(run: MadeUpRun):
    change_arrays(run, label=run.arrays["true_label"])
    assert "no given label is wrong" in left_out(run.folder)["detection_curve.png"]


def test_a_fallback_split_is_marked_in_every_plot_of_it(run: MadeUpRun):
    change_arrays(run, split_epoch=np.array(9), fallback=np.array(False))
    tipped = read_run(run.folder)
    assert "tipping point: epoch 9" in words_of(draw_tipping_point(tipped))
    assert not any("fallback" in words_of(draw(tipped)) for draw in PLOTS.values())
    change_arrays(run, fallback=np.array(True))
    fallback = read_run(run.folder)
    drawn = (draw_tipping_point, draw_training_curves, draw_noise_split, draw_detection_curve)
    assert all("fallback" in words_of(draw(fallback)) for draw in drawn)
    assert "tipping point: epoch" not in words_of(draw_tipping_point(fallback))


def test_memorised_wrong_labels_have_a_panel_where_the_truth_is_known(tmp_path: Path):
    cells = [""] + [f"{k}.5" for k in range(11)]
    known = made_up_run(tmp_path, name="known", extra={"agreed_wrong": cells}).folder
    blank = made_up_run(tmp_path, name="blank", extra={"agreed_wrong": [""] * 12}).folder
    panels = draw_tipping_point(read_run(known)).axes
    assert len(panels) == 2 and "wrong labels (%)" in panels[1].get_ylabel()
    (line,) = [line for line in panels[1].lines if "agrees with" in str(line.get_label())]
    drawn = line.get_ydata()
    assert np.isnan(drawn[0]) and drawn[1:].tolist() == [k + 0.5 for k in range(11)]
    assert len(draw_tipping_point(read_run(blank)).axes) == 1


@pytest.mark.parametrize(
    ("naive", "robust", "enlarged"), [(8, 0.9, True), (8, 0.5, False), (28, 0.9, False)]
)
def test_the_peak_is_enlarged_where_there_is_room(
    tmp_path: Path, naive: int, robust: float, enlarged: bool
):
    before = [0.2 + 0.01 * min(epoch, 2 * 5 - epoch) for epoch in range(naive)]
    extra = {
        "student_confidence": [*before, *[robust] * (40 - naive)],
        "phase": ["naive"] * naive + ["robust"] * (40 - naive),
    }
    if not enlarged and naive == 8:
        extra["student_confidence"][0] = 0.1  # the leap is no higher than what it leaves room for
        extra["student_confidence"][9] = 1.0
    folder = made_up_run(tmp_path, epochs=40, extra=extra).folder
    top = draw_tipping_point(read_run(folder)).axes[0]
    insets = top.child_axes
    assert len(insets) == enlarged
    if enlarged:
        (line, mark) = insets[0].get_lines()
        assert np.allclose(line.get_ydata(), before) and set(mark.get_xdata()) == {5}
        top.figure.draw_without_rendering()  # which puts all into its place
        box = insets[0].get_window_extent()  # nothing of the curve is covered
        foot, head = top.transData.inverted().transform([box.min, box.max])
        assert 8 < foot[0] < head[0] < 39.5 and 0.2 < head[1] < 0.9
        curve = [(x, y) for x, y in zip(range(40), extra["student_confidence"], strict=True)]
        assert not any(foot[0] <= x <= head[0] and foot[1] <= y <= head[1] for x, y in curve)


def test_epochs_in_which_a_class_vanished_are_marked(tmp_path: Path):
    cells = [""] * 4 + ["3", "3 7"] + [""] * 6
    folder = made_up_run(tmp_path, extra={"vanished_classes": cells}).folder
    lines = [line for axes in draw_training_curves(read_run(folder)).axes for line in axes.lines]
    (marks,) = [line for line in lines if str(line.get_label()).startswith("vanished")]
    assert marks.get_xdata().tolist() == [4, 5]
    assert marks.get_label() == "vanished: class 3, class 7"
    other = made_up_run(tmp_path, name="other", extra={"vanished_classes": [""] * 12}).folder
    assert "vanished" not in words_of(draw_training_curves(read_run(other)))


def test_groups_and_cuts_are_those_of_the_run(run: MadeUpRun):
    words = words_of(draw_noise_split(read_run(run.folder)))
    wrong = run.arrays["label"] != run.arrays["true_label"]
    for group in (1, 2, 3, 4):
        members = [bad for bad, own in zip(wrong, run.arrays["group"], strict=True) if own == group]
        assert f" {len(members)}, {100 * sum(members) / len(members):.1f} % wrong" in words
    for cut in ("mean below: 0.200", "Otsu's threshold: 0.500", "mean above: 0.800"):
        assert cut in words


def test_the_cuts_lie_on_the_detection_curve(run: MadeUpRun):
    (axes,) = draw_detection_curve(read_run(run.folder)).axes
    wrong = run.arrays["label"] != run.arrays["true_label"]
    curve, chance, *points = axes.lines
    assert chance.get_ydata()[0] == wrong.mean()
    assert len(points) == 3 and len({point.get_marker() for point in points}) == 3
    for lowest, point in zip((4, 3, 2), points, strict=True):
        flagged = run.arrays["group"] >= lowest
        hits = sum(f and w for f, w in zip(flagged, wrong, strict=True))
        x, y = point.get_xdata()[0], point.get_ydata()[0]
        assert (x, y) == pytest.approx((hits / wrong.sum(), hits / flagged.sum()))
        distance = np.hypot(curve.get_xdata() - x, curve.get_ydata() - y).min()
        assert distance < 1e-9


def test_last_epoch_and_mean_have_a_curve_and_a_point_of_their_own(run: MadeUpRun, tmp_path: Path):
    later = {"final_agreement": 1 - run.arrays["agreement"]}
    later["ensemble_agreement"] = run.arrays["agreement"][::-1]
    for every, name in ((5, "final"), (3, "ensemble")):
        prediction = np.where(np.arange(300) % every == 0, 0, run.arrays["label"])
        later[f"{name}_prediction"] = prediction
    write_detection(run.folder, {**run.arrays, **later}, run.names, detection="final")
    (axes,) = draw_detection_curve(read_run(run.folder)).axes
    words = [line.get_label().split(" (")[0] for line in axes.lines]
    whens = ("at the split", "at the end", "over the epochs")
    assert words[:3] == [f"lowest agreement first, {when}" for when in whens]
    wrong = run.arrays["label"] != run.arrays["true_label"]
    for name, start in (("final", "predicted another"), ("ensemble", "another on the mean")):
        flagged = later[f"{name}_prediction"] != run.arrays["label"]
        point = next(line for line in axes.lines if line.get_label().startswith(start))
        hits = (flagged & wrong).sum()
        assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx(
            (hits / wrong.sum(), hits / flagged.sum())
        )


def test_transitions_are_counted_right(run: MadeUpRun):
    figure = draw_transitions(read_run(run.folder))
    for axes, other in zip(figure.axes, ("prediction", "true_label"), strict=False):
        pairs = list(zip(run.arrays["label"].tolist(), run.arrays[other].tolist(), strict=True))
        shares = [
            [100 * pairs.count((a, b)) / sum(given == a for given, _ in pairs) for b in range(10)]
            for a in range(10)
        ]
        np.testing.assert_allclose(axes.images[0].get_array(), shares)
        assert [text.get_text() for text in axes.get_yticklabels()] == run.names


def test_of_a_hundred_classes_the_most_frequent_mistakes_are_listed(tmp_path: Path):
    run = made_up_run(tmp_path, images=3000, classes=100)
    matrix, _, listed, *_ = draw_transitions(read_run(run.folder)).axes
    assert len(matrix.get_yticks()) < 20 and not matrix.texts
    pairs = list(zip(run.arrays["label"].tolist(), run.arrays["prediction"].tolist(), strict=True))
    counts = {pair: pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1]}
    widths = [bar.get_width() for bar in listed.patches]
    assert widths == sorted(counts.values(), reverse=True)[:12]
    given, other = listed.get_yticklabels()[0].get_text().split(" → ")
    assert counts[run.names.index(given), run.names.index(other)] == widths[0]


def test_suspects_are_shown_in_order_with_false_alarms_framed(run: MadeUpRun):
    figure = draw_suspects(read_run(run.folder))
    (axes,) = figure.axes
    order = sorted(range(300), key=lambda row: (run.arrays["agreement"][row], row))[:64]
    alarms = 0
    for row, caption in zip(order, axes.texts, strict=True):
        given, predicted, true = (
            run.names[run.arrays[name][row]] for name in ("label", "prediction", "true_label")
        )
        assert caption.get_text() == f"given: {given}\npair: {predicted}\ntrue: {true}"
        assert (caption.get_weight() == "bold") == (given == true)
        alarms += given == true
    assert len(axes.patches) == alarms and len(axes.images) == 64
    assert f"right): {alarms or 'none'}" in words_of(figure)


def test_names_are_not_read_as_formulas(tmp_path: Path):
    names = [*(f"$x^{{{k}" for k in range(9)), r"\frac{"]
    folder = made_up_run(tmp_path, name="$run_{", class_names=names).folder
    assert len(write_plots(folder)) == len(ALL)


def test_suspects_csv_against_a_slow_loop(run: MadeUpRun, tmp_path: Path):
    arrays = {name: array.tolist() for name, array in run.arrays.items()}
    order = sorted(range(300), key=lambda row: (arrays["agreement"][row], arrays["index"][row]))
    for row, at in zip(read_rows(run.folder / "suspects.csv"), order, strict=True):
        assert row == {
            "index": str(arrays["index"][at]),
            "given_label": str(arrays["label"][at]),
            "given_name": run.names[arrays["label"][at]],
            "suggested_label": str(arrays["prediction"][at]),
            "suggested_name": run.names[arrays["prediction"][at]],
            "agreement": f"{arrays['agreement'][at]:.6g}",
            "group": str(arrays["group"][at]),
            "flagged": str(int(arrays["group"][at] == 4)),
            "true_label": str(arrays["true_label"][at]),
            "true_name": run.names[arrays["true_label"][at]],
        }
    rows = read_rows(made_up_run(tmp_path, "--method", "ce", name="ce").folder / "suspects.csv")
    assert {row["group"] for row in rows} == {""}
    for row in rows:
        assert (row["flagged"] == "1") == (row["given_name"] != row["suggested_name"])


def test_the_chosen_detection_orders_and_flags_the_suspects(run: MadeUpRun, tmp_path: Path):
    final_prediction = (run.arrays["prediction"] + (np.arange(300) % 7 == 0)) % len(run.names)
    last = {"final_agreement": run.arrays["agreement"][::-1], "final_prediction": final_prediction}
    last["ensemble_agreement"] = run.arrays["agreement"] ** 2 * (np.arange(300) % 2)
    last["ensemble_prediction"] = (run.arrays["prediction"] + (np.arange(300) % 5 == 0)) % 10
    for choice in ("split", "final", "ensemble"):
        folder = tmp_path / choice
        folder.mkdir()
        arrays = {**run.arrays, **last, "detection": choice}
        write_detection(folder, arrays, run.names)
        rows = read_rows(folder / "suspects.csv")
        at_split = choice == "split"
        scores = run.arrays["agreement"] if at_split else last[f"{choice}_agreement"]
        prediction = run.arrays["prediction"] if at_split else last[f"{choice}_prediction"]
        order = np.argsort(scores, kind="stable")
        assert [row["index"] for row in rows] == [str(run.arrays["index"][at]) for at in order]
        assert [row["suggested_label"] for row in rows] == [str(prediction[at]) for at in order]
        flagged = run.arrays["group"] == 4 if at_split else prediction != run.arrays["label"]
        assert [row["flagged"] for row in rows] == [str(int(flagged[at])) for at in order]
        detection = np.load(folder / "detection.npy", allow_pickle=False)
        assert np.array_equal(np.flatnonzero(detection), run.arrays["index"][flagged])
        kept = read_arrays(folder / "predictions.npz")
        assert np.array_equal(kept["suspect_index"], run.arrays["index"][order[:64]])


def test_a_real_run_folder_is_complete_in_itself(digits_run):
    train, _, names = load_digits()
    run = RunFolder.of(digits_run)
    arrays = read_arrays(run.predictions)
    clean = train.clean_labels.numpy()
    assert np.array_equal(arrays["true_label"], clean) and arrays["class_names"].tolist() == names
    assert np.array_equal(arrays["label"], noisy_digits("rand1", clean, 0))
    places = arrays["suspect_index"]
    assert len(places) == 64 and len(set(places.tolist())) == 64
    assert np.array_equal(arrays["suspect_images"][..., 0], train.images[places, 0].numpy())
    rows = read_rows(run.suspects)
    assert [int(row["index"]) for row in rows[:64]] == places.tolist()
    flagged = sorted(int(row["index"]) for row in rows if row["flagged"] == "1")
    assert flagged == np.flatnonzero(np.load(run.detection)).tolist()
    assert [path.name for path in write_plots(run.path)] == ALL


def damage_metrics(content: str) -> Callable[[MadeUpRun], object]:
    """Other bytes for metrics.csv."""
    return lambda run: RunFolder(run.folder).metrics.write_bytes(content.encode("latin-1"))


def damage_arrays(**arrays: np.ndarray) -> Callable[[MadeUpRun], object]:
    """Other arrays for predictions.npz."""
    return lambda run: change_arrays(run, **arrays)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run.folder / "args.json").unlink(), "no run folder"),
        (lambda run: (run.folder / "predictions.npz").write_bytes(b"PK"), "predictions.npz"),
        (damage_metrics("epoch,loss\nfew,1\n"), "metrics.csv: column epoch"),
        (damage_metrics("epoch,vanished_classes\n0,x\n"), "column vanished_classes"),
        (damage_metrics("epoch\n\xff\n"), "no table of text"),
        (damage_metrics("epoch,lr\n,1\n"), "has no epoch"),
        (damage_arrays(label=np.arange(3)), "label is not one number for each image"),
        (damage_arrays(label=np.zeros(300)), "label is not one number for each image"),
        (damage_arrays(prediction=np.full(300, 10)), "prediction has a class without a name"),
        (damage_arrays(split_epoch=np.zeros(2)), "split_epoch is not a single value"),
        (damage_arrays(group=np.zeros(300, int)), "group has values other than 1 to 4"),
        (damage_arrays(suspect_index=np.full(64, 1)), "suspect_index has images that were not"),
    ],
)
def test_a_damaged_folder_gives_one_line_and_status_2(
    run: MadeUpRun, capsys: pytest.CaptureFixture, damage: Callable, message: str
):
    damage(run)
    with pytest.raises(SystemExit) as exit_:
        main([str(run.folder)])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and str(run.folder) in error
    assert error.count("\n") == 1


def test_matplotlib_is_imported_only_to_draw_and_never_pyplot(run: MadeUpRun):
    code = (
        "import sys; from pathlib import Path; from utils.plots.draw import write_plots\n"
        "print('matplotlib' in sys.modules)\n"
        f"write_plots(Path({str(run.folder)!r}))\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.splitlines() == ["False", "True False"], done.stderr


def test_without_matplotlib_one_line_says_why_there_are_no_plots(
    run: MadeUpRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert write_plots(run.folder) == []
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert not list(run.folder.glob("*.png"))


def test_training_draws_at_the_tipping_point_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = []

    def write(folder: Path, *rest: object) -> None:
        drawn.append({path.name for path in write_plots(folder, *rest)})
        if len(drawn) == 2:
            raise OSError("no room for more")  # which does not end the run

    monkeypatch.setattr(session, "write_plots", write)
    monkeypatch.setattr(noise_split, "tipping_point", lambda curve: 3 if len(curve) >= 6 else None)
    words = ["--dataset", "digits", "--n_epoch", 7, "--limit_train", 300, "--width", 4]
    args = training_options(*words, "--results_dir", tmp_path)
    assert training.main(args)["tipping_point"] == 3
    assert drawn == [{*ALL}, {*ALL}]
    # The last epoch's networks are in the curve that is left.
    shown = (RunFolder.of(args).path / "detection_curve.png").read_bytes()
    (axes,) = draw_detection_curve(read_run(RunFolder.of(args).path)).axes
    assert any("at the end" in line.get_label() for line in axes.lines)
    assert shown == as_png(axes.figure)
