"""The page: its content, what it does to hostile text, and how a browser shows it."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.made_up_run import edit_json, made_up_run
from utils.plots.draw import PLOTS, write_plots
from utils.plots.style import as_png, new_figure
from utils.summary.__main__ import main
from utils.summary.overview import draw_overview
from utils.summary.page import CAPTIONS
from utils.summary.published import PUBLISHED, published_rows
from utils.summary.runs import read_runs
from utils.summary.table import ACCURACY, group_runs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
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
    folder = made_up_run(
        results, "--noise_type", "aggre", "--width", 8, name="cifar10_aggre_seed_0"
    ).folder
    edit_json(folder / "training.json", tipping_point=None, fallback=True)


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
        "wall time 1:23",
        "peak memory 1.2 GiB",
        "versions python 3.11, torch 2.11",
        "device cpu",
        "precision fp32",
        "tipping epoch 5",
        "tipping epoch never",
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
        folder = made_up_run(tmp_path, "--seed", seed, name=f"run_{seed}").folder
        edit_json(folder / "learning.json", last={"accuracy": accuracy})
    for spread, words in (("std", "85.00 ± 7.07"), ("ci95", "85.00 ± 63.53")):
        page = Elements(write_page(tmp_path, "--spread", spread))
        assert words in page.text and words in page.all("img")[0]["alt"]
        assert "small dots: single seeds" in page.text
        figure = draw_overview(group_runs(read_runs(tmp_path)[0]), ACCURACY, spread)
        (bar,) = figure.axes[0].collections[0].get_segments()
        width = float(words.split()[-1])
        assert bar[:, 0] == pytest.approx((85 - width, 85 + width), abs=0.01)


def test_what_was_not_measured_is_not_drawn(tmp_path: Path):
    folder = made_up_run(tmp_path).folder
    (folder / "learning.json").unlink()
    assert draw_overview(group_runs(read_runs(tmp_path)[0]), ACCURACY, "std") is None
    page = Elements(write_page(tmp_path))
    assert len(page.all("img")) == 1 and "accuracy - %, F1 0.600" in page.text


@pytest.mark.parametrize("embed", [False, True])
def test_nothing_comes_from_elsewhere(tmp_path: Path, embed: bool):
    challenge(tmp_path)
    write_blank(tmp_path / "digits_rand1_seed_0")
    text = write_page(tmp_path, *["--embed"] * embed)
    page = Elements(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
    sources = [image["src"] for image in page.all("img")]
    embedded = [source for source in sources if source.startswith("data:image/png;base64,iVBOR")]
    assert len(sources) == 4 and len(embedded) == (4 if embed else 2)
    assert all((tmp_path / source).is_file() for source in set(sources) - set(embedded))
    policies = [attributes["content"] for attributes in page.all("meta") if "content" in attributes]
    allowed = "data:" if embed else "'self' file: data:"
    expected = f"default-src 'none'; img-src {allowed}; style-src 'unsafe-inline'"
    assert expected in policies
    assert "@import" not in text and "url(" not in text


def test_plots_are_found_from_another_folder_and_under_any_name(tmp_path: Path):
    folder = made_up_run(tmp_path / "results", name="a b#c?d%20:ü").folder
    drawn = write_blank(folder)
    (tmp_path / "docs").mkdir()
    path = tmp_path / "docs" / "index.html"
    assert main([str(tmp_path / "results"), "--html", str(path)]) == 0
    sources = [image["src"] for image in Elements(path.read_text()).all("img")[2:]]
    assert {(path.parent / unquote(source)).resolve() for source in sources} == set(drawn)
    assert all(re.fullmatch(r"\.\./results/[\w%/.]+", source, re.ASCII) for source in sources)


def test_what_comes_from_files_is_text_and_no_more(tmp_path: Path):
    folder = made_up_run(tmp_path, "--noise_path", HOSTILE, name=HOSTILE.replace("/", "")).folder
    record = json.loads((folder / "args.json").read_text())
    record["options"] |= {"data_dir": HOSTILE, HOSTILE: "\ud800", "lr": HOSTILE}
    record |= {"device": HOSTILE, "commit": HOSTILE, "compiled": None}
    record["versions"] = {HOSTILE: HOSTILE}
    (folder / "args.json").write_text(json.dumps(record))
    (folder / "timing.json").write_text("{}")
    page = Elements(write_page(tmp_path))
    assert not page.all("script") and len(page.all("img")) == 2
    assert page.text.count(HOSTILE) >= 8
    assert "wall time" not in page.text and "peak memory" not in page.text


def test_each_plot_has_a_caption():
    assert sorted(CAPTIONS) == sorted(PLOTS)


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


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path, capsys):
    made_up_run(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path), "--html", str(tmp_path / "nowhere" / "index.html")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and "nowhere" in error


CHECK = """
<script>addEventListener("load", () => {
  const measured = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, images = [...page.images];
    return [frame.clientWidth, page.documentElement.scrollWidth,
      images.map((image) => Math.min(image.naturalWidth, image.getBoundingClientRect().width))];
  });
  document.body.innerHTML = "<pre>" + JSON.stringify(measured) + "</pre>";
});</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("option", [[], ["--embed"]])
def test_a_browser_shows_it_at_1280_and_400_pixels(tmp_path: Path, option: list[str]):
    results = tmp_path / "results"
    challenge(results)
    count = 2 + sum(len(write_plots(folder)) for folder in sorted(results.iterdir()))
    page = write_page(results, *option).replace("<details", "<details open")
    (results / "unfolded.html").write_text(page.replace(' loading="lazy"', ""))
    frame = '<iframe style="border:0;width:{}px" src="results/unfolded.html"></iframe>'
    frames = frame.format(1280) + frame.format(400)
    (tmp_path / "check.html").write_text(f"<!DOCTYPE html><body>{frames}{CHECK}</body>")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", (tmp_path / "check.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ":CONSOLE" not in done.stderr  # an image that is not found, a policy that refuses one
    measured = json.loads(unescape(re.search("<pre>(.*)</pre>", done.stdout, re.DOTALL).group(1)))
    assert [width for width, *_ in measured] == [1280, 400]
    for width, content, images in measured:
        assert content <= width, "the page scrolls sideways"
        assert len(images) == count and min(images) >= 340  # pixels
