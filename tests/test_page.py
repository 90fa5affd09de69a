"""The page: its content, what it does to hostile text, and how a browser shows it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.browser import browse_frames, in_browser
from tests.made_up_run import edit_json, made_up_run
from utils.plots.draw import write_plots
from utils.plots.style import as_png, new_figure
from utils.summary.__main__ import main
from utils.summary.overview import draw_overview
from utils.summary.published import PUBLISHED, published_rows
from utils.summary.runs import read_runs
from utils.summary.table import ACCURACY, group_runs

FEW = ("noise_split.png", "transitions.png")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7 * 7 }}"


class Elements(HTMLParser):
    """All tags with their attributes, and all text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write_page(results: Path, *options: str) -> str:
    path = results / "index.html"
    assert main([str(results), "--html", str(path), *options]) == 0
    return path.read_text(encoding="utf-8")


def write_blank(folder: Path) -> list[Path]:
    """Put blank plots into a run folder: to draw real ones takes seconds."""
    for name in FEW:
        (folder / name).write_bytes(as_png(new_figure(2, 1, "")))
    return [folder / name for name in FEW]


def challenge(results: Path) -> None:
    """Method and baseline on digits, and a short run on CIFAR-10."""
    digits = ("--dataset", "digits", "--noise_type", "rand1")
    made_up_run(results, *digits, name="digits_rand1_seed_0")
    made_up_run(results, *digits, "--method", "ce", name="digits_rand1_seed_0_ce")
    short, fallback = ("--noise_type", "aggre", "--width", 8), {"tipping_point": None}
    made_up_run(results, *short, name="cifar10_aggre_seed_0", training=fallback)


def test_the_page_has_all_there_is(tmp_path: Path, capsys: pytest.CaptureFixture):
    challenge(tmp_path)
    drawn = write_blank(tmp_path / "cifar10_aggre_seed_0")
    page = Elements(write_page(tmp_path))
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "index.html")
    for words in (
        "cifar10, labels aggre",
        "digits, labels rand1",
        "setting width=8",
        "cifar10_aggre_seed_0 : accuracy 91.25 %, F1 0.600 the tipping point never came; expected",
        "digits_rand1_seed_0 : accuracy 91.25 %, F1 0.600 data set",
        "peak memory 1.2 GiB",
        "versions python 3.11, torch 2.11",
        "device cpu",
        "tipping epoch 5",
        "weight_decay 0.0005",
        "default ce 1 91.25 90.50 0.750 0.500 0.600",
        "mean ± sample standard deviation over n seeds",
        "each run at its best test epoch, trained on all 50,000 images. That is not the statistic",
    ):
        assert words in page.text, words
    assert page.text.count("ProMix 97.65 ± 0.19 89.86 IJCAI 2023") == 1  # cifar10 alone
    assert page.text.count("Published by others") == 1
    assert page.text.count("python -m utils.plots") == 2
    runs = [attributes for attributes in page.all("details") if attributes.get("class") == "run"]
    assert len(runs) == 3
    assert all("open" not in run for run in page.all("details"))
    accuracy, f1, *plots = page.all("img")
    assert "digits rand1 ce 91.25" in accuracy["alt"]
    assert "cifar10 aggre width=8 bkd 0.600" in f1["alt"]
    assert {tmp_path / plot["src"] for plot in plots} == set(drawn) and len(plots) == len(FEW)
    for plot in page.all("img"):
        assert plot["loading"] == "lazy" and int(plot["width"]) and int(plot["height"])


def test_the_spread_is_that_of_the_table(tmp_path: Path):
    for seed, accuracy in enumerate((80.0, 90.0)):
        made_up_run(tmp_path, "--seed", seed, learning={"last": {"accuracy": accuracy}})
    for spread, words in (("std", "85.00 ± 7.07"), ("ci95", "85.00 ± 63.53")):
        page = Elements(write_page(tmp_path, "--spread", spread))
        assert words in page.text and words in page.all("img")[0]["alt"]
        assert "small dots: single seeds" in page.text
        figure = draw_overview(group_runs(read_runs(tmp_path)[0]), ACCURACY, spread)
        (bar,) = figure.axes[0].collections[0].get_segments()
        width = float(words.split()[-1])
        assert bar[:, 0] == pytest.approx((85 - width, 85 + width), abs=0.01)


def test_what_was_not_measured_is_not_drawn(tmp_path: Path):
    made_up_run(tmp_path, learning=None)
    assert draw_overview(group_runs(read_runs(tmp_path)[0]), ACCURACY, "std") is None
    page = Elements(write_page(tmp_path))
    assert len(page.all("img")) == 1 and "accuracy - %, F1 0.600" in page.text


@pytest.mark.parametrize("embed", [False, True])
def test_nothing_comes_from_elsewhere_and_plots_are_found_under_any_name(tmp_path, embed: bool):
    results, path = tmp_path / "results", tmp_path / "docs" / "index.html"
    drawn = write_blank(made_up_run(results, name="a b#c?d%20:ü").folder)
    path.parent.mkdir()
    assert main([str(results), "--html", str(path), *["--embed"] * embed]) == 0
    text = path.read_text(encoding="utf-8")
    page = Elements(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
    sources = [image["src"] for image in page.all("img")]
    embedded = [source for source in sources if source.startswith("data:image/png;base64,iVBOR")]
    loaded = [source for source in sources if source not in embedded]
    assert len(embedded) == (4 if embed else 2)
    assert all(re.fullmatch(r"\.\./results/[\w%/.]+", source, re.ASCII) for source in loaded)
    found = {(path.parent / unquote(source)).resolve() for source in loaded}
    assert found == (set() if embed else set(drawn))
    policies = [attributes["content"] for attributes in page.all("meta") if "content" in attributes]
    allowed = "data:" if embed else "'self' file: data:"
    assert f"default-src 'none'; img-src {allowed}; style-src 'unsafe-inline'" in policies
    assert "@import" not in text and "url(" not in text


def test_what_comes_from_files_is_text_and_no_more(tmp_path: Path):
    run = made_up_run(
        tmp_path,
        *("--noise_path", HOSTILE),
        name=HOSTILE.replace("/", ""),
        args={"device": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}},
        timing=None,
    )
    options = json.loads((run.folder / "args.json").read_text())["options"]
    options |= {"data_dir": HOSTILE, HOSTILE: "\ud800", "lr": HOSTILE}
    edit_json(run.folder / "args.json", options=options, compiled=None)
    page = Elements(write_page(tmp_path))
    assert not page.all("script") and len(page.all("img")) == 2
    assert page.text.count(HOSTILE) >= 8
    assert "wall time" not in page.text and "peak memory" not in page.text


def test_published_results_are_for_their_own_label_set_alone():
    for label_set in ("aggre", "rand1", "worst"):
        rows = published_rows("cifar10", label_set)
        assert len(rows) == 1 + len(PUBLISHED) and all(len(row) == 4 for row in rows)
    (promix,) = [row for row in published_rows("cifar100", "noisy100") if row[0] == "ProMix"]
    assert promix[1:3] == ["73.79 ± 0.28", "79.87"]
    for dataset, label_set in (("cifar10", "clean"), ("cifar10", "rand2"), ("digits", "aggre")):
        assert published_rows(dataset, label_set) == []


def test_a_damaged_plot_is_left_out_with_one_line(tmp_path: Path, capsys):
    folder = made_up_run(tmp_path).folder
    write_blank(folder)
    (folder / FEW[0]).write_bytes(b"<svg onload=alert(1)>")
    page = tmp_path / "index.html"
    assert main([str(tmp_path), "--html", str(page)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{folder / FEW[0]}: not a PNG file" in error
    assert len(Elements(page.read_text()).all("img")) == 2 + len(FEW) - 1


@in_browser
def test_a_browser_shows_it_at_1280_and_400_pixels(tmp_path: Path):
    results = tmp_path / "results"
    challenge(results)
    count = 2 + sum(len(write_plots(folder)) for folder in sorted(results.iterdir()))
    for name, options in {"unfolded": [], "embedded": ["--embed"]}.items():
        page = write_page(results, *options).replace("<details", "<details open")
        (results / f"{name}.html").write_text(page.replace(' loading="lazy"', ""))
    names = ("unfolded", "unfolded", "embedded", "embedded")
    frames = [(f"results/{n}.html", w) for n, w in zip(names, (1280, 400) * 2, strict=True)]
    measure = """(page) => [page.documentElement.scrollWidth, [...page.images].map((image) =>
      Math.min(image.naturalWidth, image.getBoundingClientRect().width))]"""
    seen = browse_frames(frames, tmp_path, measure)
    for (page, width), (content, images) in zip(frames, seen, strict=True):
        assert content <= width, f"{page} scrolls sideways"
        assert len(images) == count and min(images) >= 340  # pixels
