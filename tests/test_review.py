"""The review page: its data, what it does to hostile names, and what a browser makes of it."""

import base64
import csv
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import browser
from tests.browser import browse_frames, in_browser
from tests.test_clean import FORMS
from utils.manifest import Manifest, as_file, corrected, csv_text, read_manifest
from utils.review import __main__ as review
from utils.review.page import Suspect, review_page

CLASSES = ["cat", "Hündchen", 'a "b", c', "</script><script>alert(1)</script>", "all", "\udcfe"]
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;<!--</script>{{ 7 * 7 }}"
NO_UTF_8 = "\u2028 \U0001f600\udcff\udce2\udc82A\udced\udca0"  # five of its bytes
NAMES = ["a.png", HOSTILE, 'x,"y".png', "ü/ö\n2.png", NO_UTF_8, "twice", " g "]

# What a person would do, and where downloads go.
HANDS = r"""
const downloads = {};
let blob = null;
URL.createObjectURL = (given) => { blob = given; return "#"; };
HTMLAnchorElement.prototype.click = function () { downloads[this.download] = blob; };
const by = (id) => document.getElementById(id);
const cards = () => [...by("cards").children];
const button = (at, action) => cards()[at].querySelector(`[data-action=${action}]`);
const set = (element, value) => {
  element[element.type === "checkbox" ? "checked" : "value"] = value;
  element.dispatchEvent(new Event("change", { bubbles: true }));
};
const choose = (at, value) => {
  button(at, "choose").click();
  by("chooser").value = value;
  press("Enter");
};
const press = (key, more = {}) => (document.activeElement ?? document.body).dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const states = () => cards().map((card) => card.querySelector(".state").textContent);
const files = () => cards().map((card) => card.querySelector(".name").textContent);
const selected = () => cards().findIndex((card) => card.classList.contains("selected"));
const saved = async (id, name) => {
  by(id).click();
  return [...new Uint8Array(await downloads[name].arrayBuffer())];
};
const load = async (bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], "decisions.csv"));
  by("file").files = transfer.files;
  const before = by("message").textContent;
  by("file").dispatchEvent(new Event("change"));
  while (by("message").textContent === before) await wait(20);
};
"""


def picture(kind: str = "PNG", size: tuple[int, int] = (4, 3)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(content, kind)
    return content.getvalue()


def suspects_of(names: Sequence[str], classes: Sequence[str] = CLASSES) -> list[Suspect]:
    """Each class is suggested to be the next one; two of three suspects are flagged."""
    count = len(classes)
    return [
        Suspect(name, classes[k % count], classes[(k + 1) % count], k / 1000, k % 3 < 2, picture())
        for k, name in enumerate(names)
    ]


def manifest_of(suspects: Sequence[Suspect], **more: str) -> Manifest:
    """The suspects with a third column, a row that is no suspect, and broken ones."""
    rows = [["1,5", each.file_name, each.given] for each in suspects]
    rows += [["", "other.png", "cat"], ["broken", "a.png"], [""], ["2", "a.png", "cat", "more"]]
    return Manifest(["size", "file_name", "label"], rows, **more)


def browse(page: str, folder: Path, script: str, before: str = "") -> Any:
    """What the script returns, which has HANDS."""
    return browser.browse(page, folder, HANDS + script, before)


def page_of(suspects: Sequence[Suspect], key: str = "k") -> str:
    return review_page("t", manifest_of(suspects), suspects, CLASSES, key)


def blank_page() -> str:
    return review_page("t", Manifest(["file_name", "label"], []), [], ["cat"], "k")


def test_the_data_is_what_was_put_in_and_cannot_break_out():
    suspects = suspects_of([*NAMES, "photo.jpg"])
    suspects[-1] = suspects[-1]._replace(thumbnail=picture("JPEG"))
    manifest = manifest_of(suspects, mark="\ufeff", line_end="\r\n")
    page = review_page(HOSTILE + "\udcff", manifest, suspects, CLASSES, HOSTILE)
    page.encode("utf-8")
    for tag in ("<script", "</script", "<img", "<!--"):
        assert page.count(tag) == blank_page().count(tag), tag
    (text,) = re.findall('<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert text.isascii() and "<" not in text
    data = json.loads(text)
    assert data["title"] == HOSTILE + "\udcff" and data["key"] == HOSTILE
    assert data["class_names"] == CLASSES and Manifest(**data["manifest"]) == manifest
    for put_in, taken_out in zip(suspects, data["suspects"], strict=True):
        head, content = taken_out.pop("thumbnail").split(",")
        assert base64.b64decode(content) == put_in.thumbnail
        assert head == f"data:image/{'jpeg' if put_in.file_name == 'photo.jpg' else 'png'};base64"
        assert Suspect(**taken_out, thumbnail=put_in.thumbnail) == put_in


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_name": "no.png"}, "'no.png' is not in the manifest"),
        ({"suggested": "dog"}, "no class 'dog'"),
        ({"thumbnail": b"<svg>"}, "neither PNG nor JPEG"),
    ],
)
def test_a_suspect_that_cannot_be_shown_is_refused(change: dict[str, Any], words: str):
    (suspect,) = suspects_of(["a.png"])
    with pytest.raises(ValueError, match=words):
        review_page("t", manifest_of([suspect]), [suspect._replace(**change)], CLASSES, "k")


COLUMNS = "file_name,given_label,suggested_label,score"


def other_list(folder: Path, *rows: str, name: str = "list.csv", heading: str = COLUMNS) -> Path:
    (folder / name).write_text("\n".join([heading, *rows]) + "\n")
    return folder / name


def review_list(file: Path, *words: object) -> int:
    return review.main(["--suspects", str(file), "--images", str(file.parent), *map(str, words)])


def data_of(page: Path) -> dict[str, Any]:
    (text,) = re.findall('id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text)


def test_a_page_of_another_programs_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(picture())
    os.mkfifo(tmp_path / "pipe.png")
    rows = ["a.png,cat,dog,0.75,0", "b.png,M\u00e4use,,-1,True", "c.png,dog,cat,0.5,1"]
    file = other_list(tmp_path, *rows, "pipe.png,dog,cat,3e-1,", heading=f"{COLUMNS},flagged")
    assert review_list(file) == 0
    said = capsys.readouterr().out
    assert f"warning: {tmp_path / 'pipe.png'}: not a file" in said
    assert "review.html: the 3 most suspect of 4 labels" in said
    data = data_of(tmp_path / "review.html")
    keys = ("link", "given", "suggested", "score", "flagged")
    assert [[one[key] for key in keys] for one in data["suspects"]] == [
        ["b.png", "M\u00e4use", "M\u00e4use", -1, True],
        ["c.png", "dog", "cat", 0.5, True],
        ["a.png", "cat", "dog", 0.75, False],
    ]
    names = ["b.png", "pipe.png", "c.png", "a.png"]
    assert [row[0] for row in data["manifest"]["rows"]] == names
    assert data["manifest"]["columns"] == ["file_name", "label"]
    assert review_list(other_list(tmp_path, rows[0][:-2])) == 0  # an earlier page is replaced
    assert data_of(tmp_path / "review.html")["key"] != data["key"]
    photo = tmp_path / "a.png"
    assert (
        review_list(file, "--out", photo, "--force") == 0 and len(data_of(photo)["suspects"]) == 1
    )


@pytest.mark.parametrize(
    ("row", "words", "message"),
    [
        ("a.png,cat,dog", "", "row 1 ('') has 3 cells, not 4"),
        ("a.png,cat,dog,low", "", "row 1 ('a.png') has the score 'low'; a number is needed"),
        ("a.png,cat,dog,nan", "", "row 1 ('a.png') has the score 'nan'"),
        ("a.png,,dog,1", "", "row 1 ('a.png') has no given_label"),
        (",cat,dog,1", "", "row 1 ('') has no file_name"),
        ("a.png,cat,dog,1\na.png,cat,cat,1", "", "row 2 ('a.png') is listed before"),
        ("", "", "list.csv: lists no image"),
        ("gone.png,cat,dog,1", "", "no image can be read; "),
        ("a.png,cat,dog,1", "--images nowhere", "--images nowhere: no such folder"),
        ("a.png,cat,dog,1", "--out list.csv --force", "is the list of suspects; choose another"),
        ("a.png,cat,dog,1", "--out a.png", "a.png: exists and is no earlier output; choose"),
        ("a.png,cat,dog,1", "--suspects a.png", "a NUL character"),
        ("a.png,cat,dog,1", "--suspects other.csv", "has no column 'score'; there are 'file_name'"),
    ],
)
def test_a_list_of_no_use_is_refused(
    row: str, words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(picture())
    other_list(tmp_path, row, name="other.csv", heading=COLUMNS.removesuffix(",score"))
    file = other_list(tmp_path, row)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as ended:
        review_list(file, *words.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_comes_from_elsewhere():
    page = blank_page()
    assert "default-src 'none'; img-src data:" in page and "<noscript>" in page
    for words in ("http:", "https:", "//cdn", "<link", "@import", "url(", "innerHTML", "confirm("):
        assert words not in page, words


@in_browser
@pytest.mark.parametrize("form", ["plain", "windows", "corrected before"])
def test_downloads_are_those_of_python(tmp_path: Path, form: str):
    names = NAMES + ["cr\rlf"] * (form == "windows")  # alone, CR is not quoted by older Pythons
    suspects = suspects_of([*names, "twice"])
    manifest = manifest_of(suspects)
    if form == "windows":
        manifest = manifest_of(suspects, mark="\ufeff", line_end="\r\n")
    if form == "corrected before":
        rows = [[*row, "old", "é"] if len(row) == 3 else row for row in manifest.rows]
        manifest = Manifest([*manifest.columns, "changed_from", "note"], rows)
    decisions = {names[0]: suspects[0].given, names[1]: suspects[1].suggested, names[2]: None}
    decisions |= {names[3]: CLASSES[2], names[4]: CLASSES[5], "twice": CLASSES[3]}
    script = """
    const before = await saved("save", "corrected.csv");
    button(0, "keep").click(); button(1, "suggest").click(); button(2, "drop").click();
    choose(3, 2); choose(4, 5); choose(5, 3);
    button(6, "drop").click(); button(6, "drop").click();
    return { before, after: await saved("save", "corrected.csv"),
      decisions: await saved("save-decisions", "decisions.csv"), files: files(),
      titles: cards().map((card) => card.querySelector(".name").title),
      labels: cards().map((card) => card.querySelector(".given").textContent),
      title: [by("title").textContent, document.title], states: states(),
      figures: ["n-decided", "n-changed", "n-dropped"].map((id) => by(id).textContent),
      foreign: document.querySelectorAll("img[src=x]").length, facts: by("facts").textContent };
    """
    page = review_page(HOSTILE, manifest, suspects, CLASSES, "k")
    seen = browse(page, tmp_path, script)
    assert bytes(seen["before"]) == as_file(corrected(manifest, {}))
    assert bytes(seen["after"]) == as_file(corrected(manifest, decisions))
    words = ["keep", "change", "drop", "change", "change", "change"]
    lines = [[name, word, decisions[name] or ""] for name, word in zip(names, words, strict=False)]
    text = csv_text([["file_name", "decision", "label"], *lines])
    assert bytes(seen["decisions"]) == text.encode("utf-8", "surrogateescape")
    assert seen["files"] == seen["titles"] == [each.file_name for each in suspects]
    assert seen["labels"] == [each.given for each in suspects]
    assert seen["title"][0] == HOSTILE and seen["foreign"] == 0
    assert seen["states"][:3] == ["kept", f"changed to {suspects[1].suggested}", "dropped"]
    assert seen["states"][6] == "undecided" and seen["states"][5] == seen["states"][-1]
    whole = [row for row in manifest.rows if len(row) == len(manifest.columns)]
    changed = [decisions.get(row[1], row[2]) not in (row[2], None) for row in whole]
    assert seen["figures"] == [f"7 of {len(suspects)}", str(sum(changed)), "1"]
    assert f"{len(suspects) + 1} images in the manifest" in seen["facts"]
    assert "3 broken rows" in seen["facts"]


@in_browser
@pytest.mark.parametrize("name", FORMS)
def test_a_download_keeps_the_form(name: str, tmp_path: Path):
    before, after = FORMS[name]
    (tmp_path / name).write_text(before, encoding="utf-8", newline="")
    manifest = read_manifest(tmp_path / name)
    first, second = manifest.cells("label")[:2]
    pairs = zip(["1.png", "2.png", "3.png"], [first, second, second], strict=True)
    suspects = [Suspect(name, given, given, 0, False, picture()) for name, given in pairs]
    page = review_page("t", manifest, suspects, [first, second], "k")
    script = "choose(0, 1); choose(1, 0); button(2, 'drop').click();"
    script += f"return await saved('save', 'corrected{Path(name).suffix}');"
    assert bytes(browse(page, tmp_path, script)).decode() == after


@in_browser
def test_keys_decide_and_move_on(tmp_path: Path):
    suspects = suspects_of([f"{k}.png" for k in range(6)])
    script = """
    const seen = [selected()];
    for (const key of ["ArrowLeft", "ArrowRight", "k", "s", "D"]) {
      press(key);
      seen.push(selected());
    }
    press("k", { repeat: true }); press("s", { ctrlKey: true }); press("x");
    press("c");
    const focus = [document.activeElement === by("chooser") && cards()[4].contains(by("chooser"))];
    for (const key of ["k", "s", "d", "u", "ArrowDown"]) press(key);
    by("chooser").value = 3; press("Escape");
    focus.push(document.activeElement === cards()[4] && by("chooser").hidden);
    choose(4, 2);
    press("k"); press("ArrowRight"); seen.push(selected());
    const decided = states();
    press("u"); press("u"); seen.push(selected()); press("U"); seen.push(selected());
    return { seen, focus, decided, undone: states(), pressed: cards().map((card) =>
      [...card.querySelectorAll("[aria-pressed=true]")].map((one) => one.textContent).join()) };
    """
    seen = browse(page_of(suspects), tmp_path, script)
    assert seen["seen"] == [0, 0, 1, 2, 3, 4, 5, 4, 3] and seen["focus"] == [True, True]
    states = ["undecided", "kept", f"changed to {CLASSES[3]}", "dropped"]
    assert seen["decided"] == [*states, f"changed to {CLASSES[2]}", "kept"]
    assert seen["undone"] == [*states[:3], *["undecided"] * 3]
    assert seen["pressed"] == ["", "keep", "take suggestion", "", "", ""]


@in_browser
def test_decisions_are_kept_until_forgotten(tmp_path: Path):
    suspects = suspects_of(NAMES)
    decide = "button(0, 'keep').click(); button(2, 'drop').click(); choose(3, 5);"
    end = "return [states(), by('not-kept').hidden];"
    decided, quiet = browse(page_of(suspects), tmp_path, decide + end)
    assert len(set(decided)) == 4 and quiet
    assert browse(page_of(suspects[1:]), tmp_path, end) == [decided[1:], True]
    assert browse(page_of(suspects), tmp_path, end) == [decided, True]
    undecided = ["undecided"] * len(suspects)
    assert browse(page_of(suspects, "another run"), tmp_path, end) == [undecided, True]
    fast = "const later = setTimeout; window.setTimeout = (act, time) => later(act, time / 20);"
    forget = """const one = by("forget"); one.click(); const first = [states(), one.textContent];
    await wait(6000); one.click(); const late = states(); one.click();
    return [first, late, states(), one.disabled]; """
    first, late, *forgotten = browse(page_of(suspects), tmp_path, forget, fast)
    assert first == [decided, "press again to forget them all"] and late == decided
    assert forgotten == [undecided, True]
    assert browse(page_of(suspects), tmp_path, end) == [undecided, True]
    broken = """Object.defineProperty(window, "localStorage",
      { get() { throw new DOMException("not here", "SecurityError"); } });"""
    assert browse(page_of(suspects), tmp_path, decide + end, broken) == [decided, False]


@in_browser
def test_filters_order_and_all_at_once(tmp_path: Path):
    suspects = suspects_of([f"{k}.png" for k in range(14)])
    script = """
    const seen = [];
    const note = () => seen.push([files(), by("n-shown").textContent, by("bulk").textContent]);
    const filter = (id, value, none) => { set(by(id), value); note(); set(by(id), none); };
    filter("given", 1, ""); filter("suggested", 2, ""); filter("flagged", true, false);
    filter("sort", "given", "score"); filter("sort", "suggested", "score");
    button(0, "keep").click(); set(by("undecided"), true); note(); set(by("flagged"), true);
    by("bulk").click(); note();
    const empty = [by("none").hidden, by("bulk").disabled];
    press("u"); note();
    return [seen, empty];
    """
    seen, empty = browse(page_of(suspects), tmp_path, script)
    flagged = [k for k in range(14) if k % 3 < 2]
    given = sorted(range(14), key=lambda k: k % 6)
    suggested = sorted(range(14), key=lambda k: (k + 1) % 6)
    shown = [[1, 7, 13], [1, 7, 13], flagged, given, suggested, [*range(1, 14)], [], flagged[1:]]
    takes = [3, 3, 10, 10, 10, 9, 0, 9]
    for now, places, take in zip(seen, shown, takes, strict=True):
        words = f"take the suggestion for all {take} flagged that are shown and undecided"
        assert now == [[f"{k}.png" for k in places], str(len(places)), words]
    assert empty == [False, True]


@in_browser
def test_decisions_are_loaded_again(tmp_path: Path):
    suspects = suspects_of(NAMES)
    heading = ["file_name", "decision", "label"]
    known = [[NAMES[1], "change", CLASSES[3]], [NAMES[3], "drop", ""]]
    known += [[NAMES[4], "keep", CLASSES[4]]]
    unknown = [["no.png", "drop", ""], [NAMES[0], "change", "dog"], [NAMES[0], "?", "cat"]]
    unknown += [["a.png"]]
    lines = [[*heading, "note"], *([*line, ""] for line in [*known, *unknown])]
    # Whatever else is there is read as by Python.
    odd = 'a"b,"c""d"e\r\n\r\n"f\n,"\r"",g,\n,,\n"never closed,\nx\n'
    text = "\ufeff" + csv_text(lines, "\r\n") + odd
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if "".join(row)]
    not_listed = sum(row[0] not in NAMES for row in rows[1:])
    script = f"""
    await load({list(text.encode("utf-8", "surrogateescape"))});
    const said = by("message").textContent;
    const decisions = await saved("save-decisions", "decisions.csv");
    by("undo").click();
    const undone = states();
    await load([97, 44, 98]);
    return {{ said, decisions, undone, refused: by("message").textContent }};
    """
    seen = browse(page_of(suspects), tmp_path, script)
    expected = csv_text([heading, *known])
    assert bytes(seen["decisions"]).decode("utf-8", "surrogateescape") == expected
    assert not_listed > 3 and seen["said"] == (
        f"Decisions loaded: 3. Not applied: {not_listed} for images that are not listed here, "
        "3 with an unknown label or decision."
    )
    assert set(seen["undone"]) == {"undecided"}
    assert "file_name, decision and label" in seen["refused"]


@in_browser
def test_thousands_of_suspects_come_by_and_by(tmp_path: Path):
    suspects = suspects_of([f"folder/{k}.png" for k in range(5000)])
    manifest = manifest_of(suspects)
    manifest.rows.extend(["1", f"folder/{k}.png", "cat"] for k in range(5000, 200000))
    script = """
    const made = [cards().length], times = [performance.now()];
    while (made.at(-1) < 300) { scrollTo(0, 1e6); await wait(50); made.push(cards().length); }
    const names = files();
    const timed = (act) => {
      const start = performance.now(); act(); times.push(performance.now() - start);
    };
    timed(() => set(by("flagged"), true)); timed(() => press("s"));
    timed(() => by("bulk").click()); timed(() => by("save").click());
    return [made, names, times, by("n-decided").textContent];
    """
    page = review_page("t", manifest, suspects, CLASSES, "k")
    made, names, times, decided = browse(page, tmp_path, script)
    assert 20 <= made[0] <= 100 and len(set(made)) > 3
    assert names == [each.file_name for each in suspects[: made[-1]]]
    assert decided == "3,334 of 5,000"
    limits = (10000, 1000, 1000, 3000, 10000)  # milliseconds, on a busy machine
    assert all(time < limit for time, limit in zip(times, limits, strict=True)), times


@in_browser
def test_it_fits_at_1280_and_390_pixels(tmp_path: Path):
    long = [HOSTILE * 9, "W" * 400, "long name " * 40, "line\n" * 40]
    suspects = suspects_of([*long, *NAMES], [*CLASSES, "w" * 200])
    page = review_page("w" * 300, manifest_of(suspects), suspects, [*CLASSES, "w" * 200], "k")
    (tmp_path / "framed.html").write_text(page, encoding="utf-8")
    measure = """(page) => {
      const all = (selector) => [...page.querySelectorAll(selector)];
      return { content: page.documentElement.scrollWidth, picture: all("#cards img")[0].offsetWidth,
        columns: new Set(all("#cards > li").map((card) => card.offsetLeft)).size,
        name: Math.max(...all(".name").map((name) => name.offsetHeight)),
        low: Math.min(...all("#cards button").map((one) => one.offsetHeight)) };
    }"""
    wide, narrow = browse_frames([("framed.html", 1280), ("framed.html", 390)], tmp_path, measure)
    assert (wide["columns"], narrow["columns"]) == (4, 1)
    assert wide["content"] <= 1280 and narrow["content"] <= 390
    for seen in (wide, narrow):
        assert seen["picture"] == 128 and seen["low"] >= 34 and seen["name"] < 70
