"""The review page under a person's hands: the browser's own keys and clicks."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from data.own_images.image_set import load_own_images
from tests.browser import Hands, hands_on, in_browser
from tests.own_images import NAMES, write_folder
from tests.test_review import HOSTILE, manifest_of, picture, suspects_of
from utils.review.page import review_page
from utils.run_folder.predictions import Predictions
from utils.run_folder.suspects import class_examples, links, most_suspect

CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]
FILES = [f"{k}.png" for k in range(20)]
STATES = "[...document.querySelectorAll('.state')].map((each) => each.textContent)"
PICKED = "[...document.querySelectorAll('.picked')].map((each) => +each.dataset.at)"
CURRENT = "+document.activeElement.closest('li').dataset.at"
CHOOSER = "document.getElementById('chooser')"


def card(at: int, within: str = "") -> str:
    inside = f".querySelector({within!r})" if within else ""
    return f"document.getElementById('cards').children[{at}]{inside}"


def page_at(
    path: Path, names: Sequence[str] = FILES, classes: Sequence[str] = CLASSES, **more: Any
) -> Path:
    suspects = [
        each._replace(link=f"files/{each.file_name}") for each in suspects_of(names, classes)
    ]
    page = review_page("t", manifest_of(suspects), suspects, classes, "k", **more)
    path.write_text(page, encoding="utf-8")
    return path


def states_of(hands: Hands, **others: str) -> bool:
    """Whether these cards, such as c3="kept", have these states and all others are undecided."""
    seen = {f"c{k}": state for k, state in enumerate(hands.see(STATES)) if state != "undecided"}
    return seen == others


def opened(hands: Hands) -> set[str]:
    """Where the browser went to show originals."""
    found = hands.send("Target.getTargets")["targetInfos"]
    return {each["url"] for each in found if "/files/" in each["url"]}


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    with hands_on(page_at(tmp_path / "review.html"), tmp_path) as person:
        yield person


@in_browser
def test_enter_takes_the_class_and_goes_on(hands: Hands):
    hands.press("c", "t", "Enter", "d")
    assert states_of(hands, c0="changed to truck", c1="dropped") and hands.see(CURRENT) == 2
    hands.press("c", "t", "Escape")
    assert hands.see(CURRENT) == 2
    hands.press("d", "c", "Enter", "k")  # nothing is chosen: the card keeps the keyboard
    decided = {"c0": "changed to truck", "c1": "dropped", "c2": "dropped", "c3": "kept"}
    assert states_of(hands, **decided)
    hands.click(card(4, "[data-action=choose]"))
    hands.press("s", "ArrowUp", "Enter", "d")
    assert states_of(hands, **decided, c4="changed to horse", c5="dropped")
    hands.click(card(6, "[data-action=choose]"))
    hands.click(f"{CHOOSER}.options[4]")
    hands.press("d")
    decided |= {"c4": "changed to horse", "c5": "dropped", "c6": "changed to cat"}
    assert states_of(hands, **decided, c7="dropped") and hands.see(f"{CHOOSER}.hidden")
    hands.press("ArrowLeft", "ArrowLeft")
    hands.press("c", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "Enter")
    del decided["c6"]
    assert states_of(hands, **decided, c7="dropped")


@in_browser
def test_digits_are_classes(hands: Hands, tmp_path: Path):
    legend = "[...document.querySelectorAll('#digits span')].map((each) => each.textContent)"
    digits = "1234567890"
    assert hands.see(legend) == [f"{k} {name}" for k, name in zip(digits, CLASSES, strict=True)]
    hands.press("5", "0", "3")
    assert states_of(hands, c0="changed to deer", c1="changed to truck", c2="kept")
    hands.open(page_at(tmp_path / "few.html", classes=CLASSES[:3]))
    hands.see("localStorage.clear()")
    hands.reload()
    hands.press("4", "0", "2")
    assert states_of(hands, c0="changed to automobile")
    many = [f"class {k}" for k in range(40)]
    names = [f"{k}.png" for k in range(39)]
    hands.open(page_at(tmp_path / "many.html", names, many))
    hands.press("ArrowRight", "ArrowLeft")
    first = hands.see(legend)
    assert first[:2] == ["1 class 1", "2 class 2"] and len(first) == 10
    hands.press(*["ArrowRight"] * 30)
    assert hands.see(legend)[:2] == ["1 class 31", "2 class 1"]
    hands.press("1", "2")
    assert {"changed to class 31", "changed to class 1"} <= set(hands.see(STATES))


@in_browser
def test_a_click_on_a_picture_opens_the_original(hands: Hands, tmp_path: Path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "1.png").write_bytes(picture())
    hands.click(card(1, ".original"))
    assert opened(hands) == {(tmp_path / "files" / "1.png").as_uri()}
    hands.click(card(2, ".original"))  # is missing
    hands.press("d")
    assert states_of(hands, c2="dropped") and hands.see("location.href").endswith("review.html")
    assert hands.see(f"{card(1, '.original')}.relList.contains('noopener')")


@in_browser
def test_one_key_decides_for_several(hands: Hands):
    hands.press("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft", "d")
    assert states_of(hands, c0="dropped", c1="dropped") and hands.see(CURRENT) == 2
    assert hands.see(PICKED) == []
    hands.click(card(3, ".state"))
    hands.click(card(6, ".original"), "Shift")
    hands.click(card(4, ".original"), "Control")
    hands.click(card(8, ".about"), "Control")
    assert hands.see(PICKED) == [3, 5, 6, 8]
    hands.press("Escape")
    assert (
        hands.see(PICKED) == [] and hands.see("document.querySelector('#message').innerText") == ""
    )
    for at in (3, 5, 8):
        hands.click(card(at, ".about"), "Control")
    hands.click(card(5, "[data-action=suggest]"))
    suggested = {"c3": "changed to deer", "c5": "changed to frog", "c8": "changed to truck"}
    dropped = {"c0": "dropped", "c1": "dropped"}
    assert states_of(hands, **dropped, **suggested) and hands.see(PICKED) == [3, 5, 8]
    hands.click(card(8, "[data-action=suggest]"))
    assert states_of(hands, **dropped)
    hands.press("u")
    assert states_of(hands, **dropped, **suggested)
    hands.press("c", "b", "Enter")
    assert states_of(hands, **dropped, **dict.fromkeys(suggested, "changed to bird"))
    assert hands.see(CURRENT) == 9 and hands.see(PICKED) == []
    hands.press("u", "u")
    assert states_of(hands, **dropped)
    hands.press("u")
    assert states_of(hands)
    hands.click(card(2, ".about"), "Control")
    hands.click(card(7, "[data-action=keep]"))  # is none of the selected
    assert states_of(hands, c7="kept") and hands.see(PICKED) == []
    assert opened(hands) == set()


@in_browser
def test_undo_goes_on_after_a_reload(hands: Hands, tmp_path: Path):
    hands.press("d", "Shift+ArrowRight", "k", "5")
    hands.reload()
    hands.press("u", "u")
    assert states_of(hands, c0="dropped")
    hands.press("u", "u")
    assert states_of(hands) and "Nothing" in hands.see(
        "document.querySelector('#message').innerText"
    )
    hands.press("d")
    steps = "review:k:steps"
    assert json.loads(hands.see(f"localStorage.getItem('{steps}')")) == [[["0.png"]]]
    for damaged in ("{", "{}", "7", "null", '[7, [7, ["x"], [], {}]]', '[[["0.png", "no class"]]]'):
        hands.see(f"localStorage.setItem('{steps}', {json.dumps(damaged)})")
        hands.reload()
        assert states_of(hands, c0="dropped") and hands.see("document.all.undo.disabled")
        assert hands.see("document.getElementById('not-kept').hidden")
    for damaged in ("{", "{}", "7", "null", "[7, null]"):
        hands.see(f"localStorage.setItem('review:k', {json.dumps(damaged)})")
        hands.reload()
        assert states_of(hands)
    older = '[["1.png","cat"],["gone.png",null]]'  # as earlier pages wrote it, without steps
    hands.see(f"localStorage.clear(); localStorage.setItem('review:k', {json.dumps(older)})")
    hands.reload()
    assert states_of(hands, c1="changed to cat")
    hands.press("d")
    hands.reload()
    hands.press("u")
    assert states_of(hands, c1="changed to cat")
    again = "for (let k = 0; k < 600; k += 1) document.querySelector('[data-action=drop]').click()"
    hands.see(again)
    assert len(json.loads(hands.see(f"localStorage.getItem('{steps}')"))) == 500
    full = f"""{{
      const put = Storage.prototype.setItem;
      Storage.prototype.setItem = function (key, value) {{
        if (key === "{steps}") throw new DOMException("", "QuotaExceededError");
        put.call(this, key, value);
      }};
    }}"""
    hands.see(full)
    hands.press("k")
    assert hands.see(f"localStorage.getItem('{steps}')") is None
    hands.reload()
    assert hands.see(STATES)[0] == "kept"


@in_browser
def test_examples_and_identical_images(tmp_path: Path):
    colors = {
        name: [picture(size=(k + 5, 3)), picture(size=(k + 5, 4))] for k, name in enumerate(CLASSES)
    }
    names = ["a.png", HOSTILE, "b.png", *FILES]
    path = page_at(tmp_path / "p.html", names, examples=colors, same=[[0, 1, 3, 4, 5], [2, 12]])
    shown = """(at) => [...document.getElementById("cards").children[at].querySelectorAll(
      ".about img")].map((one) => [one.naturalWidth, one.naturalHeight, one.width])"""
    words = "(at) => document.getElementById('cards').children[at].querySelector('.same').innerText"
    with hands_on(path, tmp_path) as hands:
        assert hands.see(f"({shown})(2)") == [[7, 3, 44], [7, 4, 44], [8, 3, 44], [8, 4, 44]]
        lines = hands.see(f"({words})(0)").splitlines()
        assert lines[0] == "identical images:" and lines[1] == f"automobile: {HOSTILE}"
        assert lines[2:] == ["cat: 0.png", "deer: 1.png", "and 1 more"]
        assert hands.see(f"({words})(2)").splitlines()[1:] == ["bird: 9.png"]
        assert hands.see(f"{card(6, '.same')}.hidden")
        conflict = (
            "(at) => document.getElementById('cards').children[at].querySelector('.conflict')"
        )
        assert hands.see(f"[0, 2].map((at) => !!({conflict})(at))") == [True, False]
        assert hands.see("document.querySelectorAll('img[src=x]').length") == 0


@in_browser
def test_the_head_folds_at_400_pixels(tmp_path: Path):
    names = ["W" * 300, "folder/" * 40 + "x.png", *FILES]
    classes = [*CLASSES, "w" * 200, HOSTILE]
    examples = {name: [picture(), picture()] for name in classes}
    path = page_at(tmp_path / "p.html", names, classes, examples=examples, same=[[0, 1, 2]])
    wide = "document.documentElement.scrollWidth"
    top = "document.getElementById('cards').getBoundingClientRect().top + scrollY"
    parts = """[...document.querySelectorAll("#cards > li, #cards > li *")].every((each) =>
      each.closest(".name, .same") || each.getBoundingClientRect().right <= innerWidth)"""
    with hands_on(path, tmp_path, 400, 800) as hands:
        assert hands.see(wide) <= 400 and hands.see(parts) and hands.see(top) < 250
        assert not hands.see("document.getElementById('bulk').checkVisibility()")
        assert hands.see("document.getElementById('save').checkVisibility()")
        hands.click("document.querySelector('summary')")
        assert hands.see("document.getElementById('bulk').checkVisibility()")
        assert hands.see(wide) <= 400
        hands.press("c")
        assert hands.see(wide) <= 400 and hands.see(parts)
        hands.size(1200, 800)
        assert hands.see("document.getElementById('bulk').checkVisibility()")
        assert not hands.see("document.querySelector('summary').checkVisibility()")
        hands.size(400, 800)
        hands.wait("!document.getElementById('bulk').checkVisibility()")


def test_links_lead_to_the_files(tmp_path: Path):
    odd = tmp_path / "pets" / "a b#c?d%20:ü" / os.fsdecode(b"\xff.png")
    run = tmp_path / "results" / "run"
    run.mkdir(parents=True)
    (link,) = links([odd], run)
    assert link.startswith("../../pets/a%20b%23c%3Fd%2520%3A") and link.isascii()
    assert os.path.normpath(run / unquote(link, errors="surrogateescape")) == str(odd)
    assert links([run / "javascript:x"], run) == ["javascript%3Ax"]
    (tmp_path / "short").symlink_to(tmp_path / "results")
    assert links([odd], tmp_path / "short" / "run") == [odd.as_uri()]


def test_what_own_images_give_to_the_page(tmp_path: Path):
    rows = write_folder(tmp_path / "pets", count=4, test=0)
    name, label, _ = rows[0]
    other = next(each for each in NAMES if each != label)
    twin = tmp_path / "pets" / "train" / other / "twin.png"
    twin.write_bytes((tmp_path / "pets" / name).read_bytes())
    images = load_own_images(tmp_path / "pets", None, 32, tmp_path / "data", quiet=True)
    own = images.own
    cells = own.manifest.cells("file_name")
    assert [{cells[row] for row in group} for group in own.files.same] == [
        {name, f"train/{other}/twin.png"}
    ]
    assert sum("the same image as" in line for line in own.warnings) == 1
    labels = own.labels.numpy()
    count = len(labels)
    agreement = np.linspace(0, 1, count)
    right = labels.copy()
    right[[0, -1]] = (right[[0, -1]] + 1) % len(NAMES)  # the last is flagged at full agreement
    predictions = Predictions(
        np.arange(count),
        labels,
        np.array(images.class_names),
        final_agreement=agreement,
        final_prediction=right,
    )
    (tmp_path / "run").mkdir()
    suspects = most_suspect(predictions, own, tmp_path / "run")
    for suspect in suspects:
        path = tmp_path / "run" / unquote(suspect.link)
        assert path.resolve() == tmp_path / "pets" / suspect.file_name and path.exists()
    examples: Mapping[str, Sequence[bytes]] = class_examples(predictions, own)
    for number, each in enumerate(images.class_names):
        least = [k for k in range(count)[::-1] if labels[k] == number == right[k]][:2]
        assert examples[each] == own.thumbnails(np.array(least))
    page = review_page("t", own.manifest, suspects, images.class_names, "k", examples)
    assert all(page.count(f'"{each.link}"') == 1 for each in suspects)
