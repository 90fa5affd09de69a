"""The plots of a run."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

import blind_knowledge_dist_training as training
from models import noise_split
from tests.conftest import call, training_options
from tests.made_up_run import MadeUpRun, made_up_run
from utils.plots import draw
from utils.plots.__main__ import main
from utils.plots.curves import draw_tipping_point, draw_training_curves
from utils.plots.draw import PLOTS, Plot, write_plots
from utils.plots.labels import draw_suspects, draw_transitions
from utils.plots.noise_split import draw_detection_curve, draw_noise_split, draw_reliability
from utils.plots.run_data import LeftOut, read_run
from utils.plots.style import as_png
from utils.run_folder.folder import RunFolder

ALL = [name for name in PLOTS if name != "reliability.png"]  # which needs labels judged by folds
CURVES = {"tipping_point.png", "training_curves.png"}


def words_of(figure) -> str:
    """All text of a figure, a line each."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def left_out(folder: Path) -> dict[str, str]:
    """Which plots cannot be drawn, and why."""
    run, reasons = read_run(folder), {}
    for name in ALL:
        try:
            PLOTS[name].draw(run)
        except LeftOut as reason:
            reasons[name] = str(reason)
    return reasons


def change(run: MadeUpRun, **arrays: object) -> None:
    """Replace arrays of the run's predictions.npz, or remove them (None)."""
    run.predictions._replace(**arrays).write(RunFolder(run.folder).predictions)


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    """A finished run with 300 images scored, ten classes and twelve epochs."""
    return made_up_run(tmp_path)


@pytest.mark.parametrize("classes", [10, 100])
def test_all_plots_are_drawn_whole_and_twice_the_same(tmp_path: Path, classes: int, capsys):
    curves = {"agreed_wrong": ["5.5"] * 12, "vanished_classes": ["3 7 9"] + [""] * 11}
    # Of ten classes with names that fonts and formulas cannot take.
    name = "$run_{\udcff" if classes == 10 else "run"
    run = made_up_run(tmp_path, name=name, classes=classes, curves=curves)
    if classes == 10:
        names = [*(f"$x^{{{k}" for k in range(8)), r"\frac{", "caf\udce9"]
        change(run, class_names=np.array(names))
        assert "given: caf\\udce9" in words_of(draw_suspects(read_run(run.folder)))
    paths = [run.folder / name for name in ALL]
    assert write_plots(run.folder) == paths
    before = [path.read_bytes() for path in paths]
    for path in paths:
        pixels = imread(path)[..., :3]
        height, width, _ = pixels.shape
        assert 900 <= width <= 1700 and 400 <= height <= 2200
        inked = (pixels.min(2) < 0.95).mean()
        assert 0.01 < inked < 0.8, f"{path} is blank or full"
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 1).all(), f"{path}: something is cut off at the edge"
    if classes == 100:
        main([str(run.folder)])  # which prints the paths
        assert capsys.readouterr().out.splitlines() == [*map(str, paths)]
    assert before == [path.read_bytes() for path in paths]
    assert not list(run.folder.glob(".*"))


def test_the_baseline_has_neither_tipping_point_nor_groups(tmp_path: Path):
    folder = made_up_run(tmp_path, "--method", "ce").folder
    assert left_out(folder) == {
        "tipping_point.png": "the baseline has no student, and so no tipping point",
        "noise_split.png": "the baseline has neither groups nor cuts",
    }
    run = read_run(folder)
    assert "net: class" in words_of(draw_suspects(run))
    assert "network's prediction" in words_of(draw_transitions(run))
    assert "predicted another class: F1" in words_of(draw_detection_curve(run))
    assert "cross-entropy" in words_of(draw_training_curves(run))


def test_a_plot_that_does_not_apply_needs_no_line(run: MadeUpRun, tmp_path: Path):
    change(run, true_label=None)
    baseline = made_up_run(tmp_path / "ce", "--method", "ce").folder
    judged = made_up_run(tmp_path / "given", "--method", "ce").folder
    RunFolder(judged).metrics.unlink()  # as where features judge the labels
    for folder, drawn in ((run.folder, 5), (baseline, 4), (judged, 3)):
        lines: list[str] = []
        assert len(write_plots(folder, lines.append)) == drawn and lines == []


def test_before_the_split_there_are_only_curves(tmp_path: Path):
    folder = RunFolder(made_up_run(tmp_path, epochs=1).folder)
    folder.predictions.unlink()
    reasons = left_out(folder.path)
    assert set(reasons) == set(ALL) - CURVES
    assert set(reasons.values()) == {"nothing is split yet: there is no predictions.npz"}
    assert "tipping point: epoch" not in words_of(draw_tipping_point(read_run(folder.path)))
    folder.metrics.unlink()
    lines: list[str] = []
    assert write_plots(folder.path, lines.append) == []
    assert [line.split(" left out: ")[0] for line in lines] == [str(folder.path / n) for n in ALL]


def test_arrays_that_a_run_lacks_leave_out_the_plots_that_need_them(run: MadeUpRun):
    some = np.where(np.arange(300) < 9, -1, run.predictions.true_label)
    for true_label in (None, some):  # of which no share of wrong labels can be told
        change(run, suspect_images=None, true_label=true_label)
        assert left_out(run.folder) == {
            "suspects.png": "predictions.npz has no images",
            "detection_curve.png": "the true labels are not known",
        }
        assert "% wrong" not in words_of(draw_noise_split(read_run(run.folder)))
    change(run, label=run.predictions.true_label)
    assert "no given label is wrong" in left_out(run.folder)["detection_curve.png"]


def test_an_error_in_one_plot_is_one_line_and_the_others_are_drawn(run: MadeUpRun, monkeypatch):
    def fail(run: object) -> None:
        raise KeyError("two\nlines")

    last = {"noise_split.png": PLOTS["noise_split.png"]}
    monkeypatch.setattr(draw, "PLOTS", {"bad.png": Plot(fail, ""), **last})
    lines: list[str] = []
    assert [path.name for path in write_plots(run.folder, lines.append)] == [*last]
    assert lines == [f"{run.folder}/bad.png left out: KeyError: 'two\\nlines'"]


def test_a_fallback_split_is_marked_in_every_plot_of_it(run: MadeUpRun):
    change(run, split_epoch=9)
    tipped = read_run(run.folder)
    assert "tipping point: epoch 9" in words_of(draw_tipping_point(tipped))
    assert not any("fallback" in words_of(PLOTS[name].draw(tipped)) for name in ALL)
    change(run, split_epoch=9, fallback=True)
    fallback = read_run(run.folder)
    drawn = (draw_tipping_point, draw_training_curves, draw_noise_split, draw_detection_curve)
    assert all("fallback" in words_of(draw(fallback)) for draw in drawn)
    assert "tipping point: epoch" not in words_of(draw_tipping_point(fallback))


def test_the_naive_phase_and_memorised_wrong_labels_have_panels_of_their_own(tmp_path: Path):
    known = {"agreed_wrong": [""] + [f"{k}.5" for k in range(11)]}
    blank = {"agreed_wrong": [""] * 12}
    # The robust phase begins in epoch 8.
    for epochs, curves, panels in ((12, known, 3), (12, blank, 2), (8, {}, 1)):
        folder = made_up_run(tmp_path, epochs=epochs, curves=curves).folder
        first, *others = draw_tipping_point(read_run(folder)).axes
        assert len(others) + 1 == panels and first.get_xlim() == (-0.5, epochs - 0.5)
        naive = others[0] if others else first
        confidence = [0.5 - 0.01 * (epoch - 5) ** 2 for epoch in range(8)]
        assert np.allclose(naive.lines[0].get_ydata(), confidence)
        assert naive.get_xlim() == (-0.5, 7.5) and set(naive.lines[1].get_xdata()) == {5}
        for axes in others[1:]:
            (line,) = [line for line in axes.lines if "agrees with" in str(line.get_label())]
            drawn = line.get_ydata()
            assert np.isnan(drawn[0]) and drawn[1:].tolist() == [k + 0.5 for k in range(11)]
            assert "wrong labels (%)" in axes.get_ylabel()


def test_epochs_in_which_a_class_vanished_are_marked(tmp_path: Path):
    cells = [""] * 4 + ["3", "3 7"] + [""] * 6
    folder = made_up_run(tmp_path, curves={"vanished_classes": cells}).folder
    lines = [line for axes in draw_training_curves(read_run(folder)).axes for line in axes.lines]
    (marks,) = [line for line in lines if str(line.get_label()).startswith("vanished")]
    assert list(marks.get_xdata()) == [4, 5]
    assert marks.get_label() == "vanished: class 3, class 7"
    other = made_up_run(tmp_path, curves={"vanished_classes": [""] * 12}).folder
    assert "vanished" not in words_of(draw_training_curves(read_run(other)))


def test_groups_and_cuts_are_those_of_the_run(run: MadeUpRun):
    words = words_of(draw_noise_split(read_run(run.folder)))
    wrong = run.predictions.label != run.predictions.true_label
    for group in (1, 2, 3, 4):
        members = wrong[run.predictions.split_group == group]
        assert f" {len(members)}, {100 * sum(members) / len(members):.1f} % wrong" in words
    for cut in ("mean below: 0.200", "Otsu's threshold: 0.500", "mean above: 0.800"):
        assert cut in words


def test_reliability_is_the_share_of_right_labels_by_score(run: MadeUpRun):
    right = run.predictions.label == run.predictions.true_label
    score = np.where(right, 0.95, 0.35)
    score[right.nonzero()[0][:9]] = 0.31
    prediction, flagged = np.zeros(300, dtype=np.int64), np.zeros(300, dtype=bool)
    names = {"posterior_agreement": score, "posterior_suggested": score}
    change(run, **names, posterior_prediction=prediction, posterior_flagged=flagged)
    (axes,) = draw_reliability(read_run(run.folder)).axes
    low = score < 0.9
    points = axes.lines[1].get_xydata()
    expected = [[score[low].mean(), 9 / low.sum()], [0.95, 1]]
    np.testing.assert_allclose(points, expected)
    texts = [text.get_text() for text in axes.texts]
    assert texts == [str(low.sum()), str((~low).sum())]
    (bars,) = axes.containers[0].lines[2]
    low_end, high_end = bars.get_segments()[1][:, 1]  # no certainty, though all are right
    assert low_end == pytest.approx(1 / (1 + 4 / (~low).sum())) and high_end == pytest.approx(1)


def test_cuts_and_results_are_points_of_the_detection_curves(run: MadeUpRun):
    label, agreement = run.predictions.label, run.predictions.split_agreement
    final, mean = (np.where(np.arange(300) % every == 0, 0, label) for every in (5, 3))
    later = {"final_agreement": 1 - agreement, "final_prediction": final}
    change(run, **later, mean_agreement=agreement[::-1], mean_prediction=mean)
    (axes,) = draw_detection_curve(read_run(run.folder)).axes
    words = [line.get_label().split(" (")[0] for line in axes.lines]
    whens = ("at the split", "at the end", "over the epochs")
    assert words[:3] == [f"lowest agreement first, {when}" for when in whens]
    wrong, group = label != run.predictions.true_label, run.predictions.split_group
    curve, chance, points = axes.lines[0], axes.lines[3], axes.lines[4:]
    assert chance.get_ydata()[0] == wrong.mean()
    assert len(points) == 5 and len({point.get_marker() for point in points}) == 5
    for start, flagged in {
        "predicted another": final != label,
        "another on the mean": mean != label,
        "group 4": group >= 4,
        "groups 3 and 4": group >= 3,
        "groups 2 to 4": group >= 2,
    }.items():
        (point,) = [point for point in points if point.get_label().startswith(start)]
        hits = sum(f and w for f, w in zip(flagged, wrong, strict=True))
        x, y = point.get_xdata()[0], point.get_ydata()[0]
        assert (x, y) == pytest.approx((hits / wrong.sum(), hits / flagged.sum()))
        if start.startswith("group"):
            assert np.hypot(curve.get_xdata() - x, curve.get_ydata() - y).min() < 1e-9


def test_transitions_are_counted_right(run: MadeUpRun):
    figure = draw_transitions(read_run(run.folder))
    others = run.predictions.split_prediction, run.predictions.true_label
    for axes, other in zip(figure.axes, others, strict=False):
        pairs = list(zip(run.predictions.label.tolist(), other.tolist(), strict=True))
        shares = [
            [100 * pairs.count((a, b)) / sum(given == a for given, _ in pairs) for b in range(10)]
            for a in range(10)
        ]
        np.testing.assert_allclose(axes.images[0].get_array(), shares)
        names = [text.get_text() for text in axes.get_yticklabels()]
        assert names == run.predictions.class_names.tolist()


def test_of_a_hundred_classes_the_most_frequent_mistakes_are_listed(tmp_path: Path):
    run = made_up_run(tmp_path, images=3000, classes=100)
    matrix, _, listed, *_ = draw_transitions(read_run(run.folder)).axes
    assert len(matrix.get_yticks()) < 20 and not matrix.texts
    given, suggested = run.predictions.label.tolist(), run.predictions.split_prediction.tolist()
    pairs, names = list(zip(given, suggested, strict=True)), run.predictions.class_names.tolist()
    counts = {pair: pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1]}
    widths = [bar.get_width() for bar in listed.patches]
    assert widths == sorted(counts.values(), reverse=True)[:12]
    given, other = listed.get_yticklabels()[0].get_text().split(" → ")
    assert counts[names.index(given), names.index(other)] == widths[0]


def test_suspects_are_shown_in_order_with_right_labels_framed(run: MadeUpRun):
    figure = draw_suspects(read_run(run.folder))
    (axes,) = figure.axes
    labels = [
        run.predictions.class_names[getattr(run.predictions, name)]
        for name in ("label", "split_prediction", "true_label")
    ]
    order = sorted(range(300), key=lambda row: (run.predictions.split_agreement[row], row))[:64]
    rights = 0
    for row, caption in zip(order, axes.texts, strict=True):
        given, predicted, true = (each[row] for each in labels)
        assert caption.get_text() == f"given: {given}\npair: {predicted}\ntrue: {true}"
        assert (caption.get_weight() == "bold") == (given == true)
        rights += given == true
    assert len(axes.patches) == rights and len(axes.images) == 64
    assert f"label is right: {rights or 'none'}" in words_of(figure)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("args.json", b"", "not JSON"),
        ("metrics.csv", b"epoch,loss\nfew,1\n", "metrics.csv: column epoch"),
        ("metrics.csv", b"epoch,vanished_classes\n0,x\n", "column vanished_classes"),
        ("metrics.csv", b"epoch,lr\n,1\n", "has no epoch"),
        ("metrics.csv", b"lr\n1\n", "has no epoch"),
    ],
)
def test_a_damaged_folder_is_one_line(run: MadeUpRun, file, content: bytes, message: str, capsys):
    (run.folder / file).write_bytes(content)
    for folder, expected in ((run.folder, message), (run.folder.parent, "no run folder")):
        with pytest.raises(SystemExit) as exit_:
            main([str(folder)])
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and expected in error and str(folder) in error
        assert error.count("\n") == 1


def test_matplotlib_is_imported_only_to_draw_and_never_pyplot(run: MadeUpRun):
    code = (
        "import sys; from pathlib import Path; from utils.plots.draw import write_plots\n"
        "print('matplotlib' in sys.modules)\n"
        f"write_plots(Path({str(run.folder)!r}))\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = call("-c", code)
    assert done.stdout.splitlines() == ["False", "True False"], done.stderr


def test_without_matplotlib_one_line_says_why(run: MadeUpRun, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert write_plots(run.folder) == []
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert not list(run.folder.glob("*.png"))


def test_training_draws_at_the_tipping_point_and_at_the_end(tmp_path: Path, monkeypatch):
    drawn = []

    def write(folder: Path, *rest: object) -> None:
        drawn.append({path.name for path in write_plots(folder, *rest)})
        if len(drawn) == 2:
            raise OSError("no room for more")  # which does not end the run

    monkeypatch.setattr(draw, "write_plots", write)
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
