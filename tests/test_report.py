"""The page: its content, what it does to hostile text, and how a browser shows it."""

import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.made_up_run import made_up_run
from utils import summary
from utils.plots import PICTURES, write_pictures
from utils.published import PUBLISHED, published_rows
from utils.report import PICTURE_CAPTIONS, duration

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"


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

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = results / "index.html"
    monkeypatch.setattr("sys.argv", ["utils.summary", str(results), "--html", str(path)])
    summary.main()
    return path.read_text(encoding="utf-8")


def challenge(results: Path) -> None:
    """Method and baseline on digits, and a short run on CIFAR-10."""
    digits = ("--dataset", "digits", "--noise_type", "rand1")
    made_up_run(results, *digits, name="digits_rand1_seed_0")
    made_up_run(results, *digits, "--method", "ce", name="digits_rand1_seed_0_ce")
    made_up_run(results, "--noise_type", "aggre", "--width", 8, name="cifar10_aggre_seed_0")


def test_the_page_tells_all_there_is(tmp_path: Path, monkeypatch, capsys):
    challenge(tmp_path)
    drawn = write_pictures(tmp_path / "cifar10_aggre_seed_0")
    page = Elements(write_page(tmp_path, monkeypatch))
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "index.html")
    for words in (
        "cifar10, labels aggre",
        "digits, labels rand1",
        "departs from the defaults in width=8",
        "departs from the defaults in nothing",
        "wall time 1 min 23 s",
        "versions python 3.11, torch 2.11",
        "device cpu",
        "precision fp32",
        "tipping point epoch 5",
        "weight_decay 0.0005",
        "default ce 1 91.25 90.50 0.750 0.500 0.600",
        "mean ± sample standard deviation over n seeds",
        "each run at its best test epoch, trained on all 50,000 images. That is not the statistic",
    ):
        assert words in page.text, words
    assert page.text.count("ProMix 97.65 ± 0.19 89.86 ProMix, IJCAI 2023") == 1  # cifar10 alone
    assert page.text.count("No published figures for this label set.") == 1
    assert page.text.count("python -m utils.plots") == 2
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(drawn) == 6
    assert all(re.match("data:image/png;base64,iVBOR", picture["src"]) for picture in pictures)
    assert sum(tag == "details" for tag, _ in page.tags) == 3


def test_nothing_comes_from_elsewhere(tmp_path: Path, monkeypatch):
    challenge(tmp_path)
    write_pictures(tmp_path / "digits_rand1_seed_0")
    text = write_page(tmp_path, monkeypatch)
    page = Elements(text)
    tags = {tag for tag, _ in page.tags}
    assert "img" in tags and not tags & {"script", "link", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:", "#"))
    assert "@import" not in text and "url(" not in text


def test_what_comes_from_files_is_text_and_no_more(tmp_path: Path, monkeypatch):
    folder = made_up_run(tmp_path, name=HOSTILE.replace("/", "")).folder
    record = json.loads((folder / "args.json").read_text())
    record["options"] |= {"data_dir": HOSTILE, HOSTILE: [HOSTILE], "lr": HOSTILE}
    record |= {"device": HOSTILE, "precision": HOSTILE, "commit": HOSTILE, "compiled": None}
    record["versions"] = {HOSTILE: HOSTILE}
    (folder / "args.json").write_text(json.dumps(record))
    (folder / "timing.json").write_text("{}")
    page = Elements(write_page(tmp_path, monkeypatch))
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags and "img" not in tags
    assert page.text.count(HOSTILE) >= 8
    assert "wall time -" in page.text


def test_captions_are_for_the_pictures_that_there_are():
    assert sorted(PICTURE_CAPTIONS) == sorted(PICTURES)


def test_published_figures_stand_beside_their_own_label_set_alone():
    for label_set in ("aggre", "rand1", "worst"):
        rows = published_rows("cifar10", label_set)
        assert len(rows) == 1 + len(PUBLISHED) and all(len(row) == 4 for row in rows)
    (promix,) = [row for row in published_rows("cifar100", "noisy100") if row[0] == "ProMix"]
    assert promix[1:3] == ["73.79 ± 0.28", "79.87"]
    for dataset, label_set in (("cifar10", "clean"), ("cifar10", "rand2"), ("digits", "aggre")):
        assert published_rows(dataset, label_set) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3725, "1 h 02 min"),
        ("9", "-"),
        (None, "-"),
    ],
)
def test_durations(seconds, words: str):
    assert duration(seconds) == words


@pytest.mark.parametrize("damage", ["picture", "folder"])
def test_a_page_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, damage: str
):
    folder = made_up_run(tmp_path).folder
    before = write_page(tmp_path, monkeypatch)
    target = tmp_path / "index.html"
    if damage == "picture":
        (folder / "suspects.png").write_bytes(b"<svg onload=alert(1)>")
    else:
        target = tmp_path / "nowhere" / "index.html"
    monkeypatch.setattr("sys.argv", ["utils.summary", str(tmp_path), "--html", str(target)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        summary.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert ("suspects.png: not a PNG" if damage == "picture" else "nowhere") in error
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", folder.name]


CHECK = """
addEventListener("load", () => {
  const measured = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    return {
      width: frame.clientWidth,
      content: page.documentElement.scrollWidth,
      pictures: [...page.images].map((image) => image.naturalWidth),
      shown: [...page.images].map((image) => image.getBoundingClientRect().width),
      text: Math.min(...[...page.querySelectorAll("td, p")].map(
        (element) => parseFloat(getComputedStyle(element).fontSize))),
    };
  });
  document.body.innerHTML = "<pre>" + JSON.stringify(measured) + "</pre>";
});
"""


def browse(path: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's elements after it is loaded, and what it wrote to the console."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def measure(page: str, folder: Path) -> list[dict]:
    """How a browser shows a page at 1280 and at 400 pixels."""
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{escape(page)}"></iframe>'
        for width in (1280, 400)
    )
    path = folder / "check.html"
    path.write_text(f"<!DOCTYPE html><body>{frames}<script>{CHECK}</script></body>")
    seen, _ = browse(path, folder / "profile")
    return json.loads(re.search("<pre>(.*)</pre>", seen, re.DOTALL).group(1))


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_browser_shows_it_at_1280_and_400_pixels(tmp_path: Path, monkeypatch):
    results = tmp_path / "results"
    challenge(results)
    count = sum(len(write_pictures(folder)) for folder in sorted(results.iterdir()))
    page = write_page(results, monkeypatch)
    _, console = browse(results / "index.html", tmp_path / "profile")
    assert console == []
    wide, narrow = measure(page, tmp_path)
    assert (wide["width"], narrow["width"]) == (1280, 400)
    for seen in (wide, narrow):
        assert len(seen["pictures"]) == count == 16 and min(seen["pictures"]) > 500
        assert seen["content"] <= seen["width"], "the page scrolls sideways"
        assert seen["text"] >= 12 and min(seen["shown"]) >= 500  # pixels


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_the_browser_would_notice_what_is_wrong(tmp_path: Path):
    broken = '<p style="width:900px">wide</p><img src="data:image/png;base64,AAAA">'
    wide, narrow = measure(f"<!DOCTYPE html>{broken}", tmp_path)
    assert wide["content"] == 1280 and narrow["content"] > 400
    assert wide["pictures"] == narrow["pictures"] == [0]
    (tmp_path / "loud.html").write_text("<script>console.error('heard')</script>")
    _, console = browse(tmp_path / "loud.html", tmp_path / "profile")
    assert len(console) == 1 and "heard" in console[0]
