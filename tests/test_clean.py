"""Manifests: read, corrected, written in their own form; and the command that does it."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import TOP
from own_images import picture

from utils.files import read_columns, write_text
from utils.manifest import Manifest, as_file, corrected, csv_text, of_files, read_manifest
from utils.review import clean
from utils.run_folder.folder import RunFolder

STRANGE = [
    "a,b.png",
    'say "cheese".png',
    "two\nlines.png",
    "carriage\rreturn.png",
    "Mäuse.png",
    " blank .png",
    "<b>.png",
]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_manifest_is_written_as_it_was_read(line_end: str, mark: str, tmp_path: Path):
    rows = [[str(k), name, "cat"] for k, name in enumerate(STRANGE)]
    lines = [["id", "file_name", "label"], *rows, ["broken"], ["1", "2", "3", "4"]]
    content = (mark + csv_text(lines, line_end)).encode() + b"6,\xff.png,cat" + line_end.encode()
    manifest = read_manifest(written(tmp_path / "list.csv", content))
    assert manifest.columns == lines[0] and manifest.line_end == line_end
    assert manifest.cells("file_name")[:7] == STRANGE
    assert [manifest.whole(row) for row in range(10)] == [True] * 7 + [False, False, True]
    assert manifest.cells("nothing") == [""] * 10
    assert as_file(manifest) == content


def test_a_corrected_manifest_tells_what_was_there_before():
    rows = [["1.png", "cat", "x"], ["2.png", "dog", "y"], ["3.png", "dog", ""], ["1.png", "dog"]]
    manifest = Manifest(["file_name", "label", "note"], rows)
    result = corrected(manifest, {"1.png": "dog", "2.png": None, "3.png": "dog", "9.png": "cat"})
    assert result.columns == ["file_name", "label", "note", "changed_from"]
    expected = [["1.png", "dog", "x", "cat"], ["3.png", "dog", "", ""], ["1.png", "dog"]]
    assert result.rows == expected
    assert rows[0] == ["1.png", "cat", "x"]  # the one read is as it was
    composed = Manifest(["file_name", "label"], [["1.png", "Ma\u0308use"]])
    assert corrected(composed, {"1.png": "M\u00e4use"}).rows == [["1.png", "Ma\u0308use", ""]]
    again = corrected(result, {"3.png": "cat"})
    assert again.columns == result.columns
    assert again.rows[:2] == [["1.png", "dog", "x", "cat"], ["3.png", "cat", "", "dog"]]


FORMS = {  # a file, and what it is with the first two labels exchanged, the third dropped
    "semicolons.csv": (
        "file_name;label\r\n1.png;a,b\r\n2.png;b\r\n3.png;b\r\n4.png;b\r\nbroken\r\n",
        "file_name;label;changed_from\r\n1.png;b;a,b\r\n2.png;a,b;b\r\n4.png;b;\r\nbroken\r\n",
    ),
    "texts.jsonl": (
        '{"n": 1.0, "file_name": "1.png", "label": "\\u00e4"}\n{"label": "b", "file_name": "2.png"}'
        '\n\n{"file_name": "3.png"}\n{"file_name": "4.png", "o": {"k": [1, "x"]}, "label": null}\n',
        '{"n": 1.0, "file_name": "1.png", "label": "b", "changed_from": "\\u00e4"}\n{"file_name": '
        '"2.png", "label": "\\u00e4", "changed_from": "b"}\n{"file_name": "4.png", "label": null, '
        '"o": {"k": [1, "x"]}, "changed_from": null}\n',
    ),
    "numbers.jsonl": (
        '{"file_name":"1.png","label":7,"changed_from":null}\n{"file_name":"2.png","label":12}\n'
        '{"file_name":"3.png","label":7}\n',
        '{"file_name":"1.png","label":12,"changed_from":7}\n'
        '{"file_name":"2.png","label":7,"changed_from":12}\n',
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_corrected_manifest_keeps_its_form(name: str, tmp_path: Path):
    before, after = FORMS[name]
    manifest = read_manifest(written(tmp_path / name, before.encode()))
    first, second = manifest.cells("label")[:2]
    result = corrected(manifest, {"1.png": second, "2.png": first, "3.png": None})
    assert as_file(result).decode() == after


def test_the_manifest_of_a_folder():
    one = of_files([("a/1.png", "a", "train"), ("b/1.png", "b", "train")])
    assert as_file(one) == b"file_name,label\na/1.png,a\nb/1.png,b\n"
    both = of_files([("train/a/1.png", "a", "train"), ("test/a/1.png", "a", "test")])
    assert both.columns == ["file_name", "label", "split"]
    assert as_file(of_files([])) == b"file_name,label\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder as the training leaves it, with strange names."""
    folder = RunFolder(tmp_path / "run")
    folder.make()
    rows = [[name, "cat"] for name in STRANGE]
    folder.manifest.write_bytes(
        as_file(Manifest(["file_name", "label"], [*rows, ["o.png", "dog"]]))
    )
    columns = ["file_name", "given_label", "suggested_label", "score", "suggested_score", "flagged"]
    suspects = [[name, "cat", "dog", k / 10, 0.8, int(k < 2)] for k, name in enumerate(STRANGE)]
    suspects.append(["o.png", "dog", "cat", 0.9, 0.1, 0])
    write_text(folder.suspects, csv_text([columns, *suspects]))
    original = written(tmp_path / "list.csv", folder.manifest.read_bytes())
    options = {"manifest": str(original), "images": None}
    folder.args.write_text(json.dumps({"options": options}))
    folder.training.write_text("{}")
    return folder


def table_of(path: Path) -> dict[str, list[str]]:
    """File name -> the other cells of a corrected manifest."""
    rows = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
    heading, *rows = rows
    assert heading == ["file_name", "label", "changed_from"]
    return {name: cells for name, *cells in rows}


def take(run: RunFolder, out: Path, *words: object) -> dict[str, list[str]]:
    assert clean.main([str(run), "--out", str(out), *map(str, words)]) == 0
    return table_of(out)


def test_taking_suggestions(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture):
    kept, changed = ["cat", ""], ["dog", "cat"]
    table = take(run, tmp_path / "out.csv", "--take", "flagged")
    assert [table[name] for name in STRANGE] == [changed] * 2 + [kept] * 5
    assert capsys.readouterr().out.splitlines() == [
        "expected: about 2 labels are mended and 0 right ones broken",
        f"{tmp_path / 'out.csv'}: 2 labels changed, 0 images dropped, 8 rows left",
        "      2  cat -> dog",
    ]
    table = take(run, tmp_path / "out.csv", "--take", "top", 3)
    assert [table[name] for name in STRANGE] == [changed] * 3 + [kept] * 4
    table = take(run, tmp_path / "out.csv", "--take", "top", 100)
    assert table["o.png"] == ["cat", "dog"]
    table = take(run, tmp_path / "out.csv", "--take", "flagged", "--drop")
    assert list(table) == [*STRANGE[2:], "o.png"]
    assert "0 labels changed, 2 images dropped, 6 rows left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("score", "suggested", "flagged", "words"),
    [
        ("0.4", "0.2", 1, "about 2 labels are mended and 3 right ones broken; review"),
        ("0.1", "0.9", 0, "no label is flagged; review"),
        ("0.1", "", 1, "the scores of this run are no probabilities"),
    ],
)
def test_what_would_not_help_is_not_taken(run, tmp_path, capsys, score, suggested, flagged, words):
    table = read_columns(run.suspects) | {"flagged": [str(flagged)] * 8}
    table |= {"score": [score] * 8, "suggested_score": [suggested] * 8}
    write_text(run.suspects, csv_text([list(table), *zip(*table.values(), strict=True)]))
    with pytest.raises(SystemExit):
        clean.main([str(run), "--take", "flagged", "--out", str(tmp_path / "out.csv")])
    assert words in capsys.readouterr().err and not (tmp_path / "out.csv").exists()
    assert len(take(run, tmp_path / "out.csv", "--take", "top", 3)) == 8


def test_suspects_of_another_manifest_are_refused(run: RunFolder, tmp_path: Path, capsys):
    whole = run.suspects.read_bytes().decode()
    for text in (whole.replace("o.png,dog", "o.png,cat"), whole + "p.png,cat,dog,0.1,0.8,1\n"):
        write_text(run.suspects, text)
        with pytest.raises(SystemExit):
            take(run, tmp_path / "out.csv", "--take", "top", "2")
        assert "is not in the run's manifest" in capsys.readouterr().err
    write_text(run.suspects, whole)
    run.args.write_text('{"options": {}}')
    with pytest.raises(SystemExit):
        clean.main([str(run), "--take", "flagged", "--tree", str(tmp_path / "tree")])
    assert "names neither images nor manifest" in capsys.readouterr().err


def test_taking_decisions(run: RunFolder, tmp_path: Path):
    rows = [["file_name", "decision", "label"], [STRANGE[0], "keep", "cat"]]
    rows += [[STRANGE[3], "drop", ""], [STRANGE[3], "keep", "cat"], [STRANGE[1], "drop", ""]]
    rows += [[STRANGE[1], "change", "dog"], [STRANGE[2], "drop", ""]]
    rows += [[unicodedata.normalize("NFD", STRANGE[4]), "change", "dog"]]
    decisions = written(tmp_path / "decisions.csv", csv_text(rows).encode())
    table = take(run, tmp_path / "out.csv", "--take", decisions)
    assert STRANGE[2] not in table and len(table) == 7
    assert table[STRANGE[0]] == table[STRANGE[3]] == ["cat", ""]  # the last decision counts
    assert table[STRANGE[1]] == ["dog", "cat"]
    assert table[STRANGE[4]] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--take", "top"], "top and a number"),
        (["--take", "top", "many"], "top and a number"),
        (["--take", "top", "-1"], "top and a number"),
        (["--take", "flagged", "2"], "give flagged, top NUMBER, or one file"),
        (["--take", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--take", "list.csv"], "has no column 'decision'"),
        (["--take", "list.csv", "--drop"], "tells by itself what is dropped"),
        (["--take", "unknown.csv"], "'nobody.png' is not in the run's manifest"),
        (["--take", "label.csv"], "no image has the label 'bird'"),
        (["--take", "word.csv"], "decision 'perhaps'"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    words: list[str],
    message: str,
    run: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    for name, row in {
        "unknown": "nobody.png,keep,cat",
        "label": "o.png,change,bird",
        "word": "o.png,perhaps,cat",
    }.items():
        written(tmp_path / f"{name}.csv", f"file_name,decision,label\n{row}\n".encode())
    out = written(tmp_path / "out.csv", b"before")
    with pytest.raises(SystemExit) as ended:
        clean.main([str(run), "--out", str(out), *words])
    assert ended.value.code == 2 and out.read_bytes() == b"before"
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.fixture
def photos(run: RunFolder, tmp_path: Path) -> Path:
    """The images of the run: two of one name, one in another Unicode form, one that is gone."""
    names = ["x/1.png", "y/1.PNG", "z/1_2.png", "Ma\u0308use.png", "t.png", "gone.png", "drop.png"]
    for name in set(names) - {"gone.png"}:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text(name)
    rows = [[unicodedata.normalize("NFC", name), "cat", ""] for name in names]
    rows[4][2], rows[1][1] = "Validation", "dog"
    more = [["x/../x/1.png", "dog", ""], ["t.png", "dog", "never"], ["drop.png", "", ""]]
    manifest = Manifest(["file_name", "label", "split"], [*rows, *more])
    run.manifest.write_bytes(as_file(manifest))
    run.args.write_text(json.dumps({"options": {"images": str(tmp_path / "photos")}}))
    rows = [["x/1.png", "change", "dog"], ["drop.png", "drop", ""]]
    text = csv_text([["file_name", "decision", "label"], *rows])
    return written(tmp_path / "decisions.csv", text.encode())


def tree(run: RunFolder, decisions: Path, out: Path, *words: object) -> int:
    return clean.main([str(run), "--take", str(decisions), "--tree", str(out), *map(str, words)])


@pytest.mark.parametrize("linked", [True, False])
def test_class_folders_of_the_corrected_labels(
    linked: bool, run, photos: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_: os.close(-1))
    out = tmp_path / "tree"
    out.mkdir()
    monkeypatch.chdir(out)
    assert tree(run, photos, Path("."), "--out", tmp_path / "out.csv") == 0
    found = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    assert {name: path.read_text() for name, path in found.items()} == {
        "train/dog/1.png": "x/1.png",
        "train/dog/1_2.PNG": "y/1.PNG",
        "train/cat/1_2.png": "z/1_2.png",
        f"train/cat/{unicodedata.normalize('NFD', 'Mäuse')}.png": "Ma\u0308use.png",
        "val/cat/t.png": "t.png",
    }
    original = tmp_path / "photos" / "x" / "1.png"
    assert found["train/dog/1.png"].samefile(original) == linked
    counts = "5 hard links and 0 copies" if linked else "0 hard links and 5 copies"
    said = f".: 5 images in 3 class folders, {counts}; 3 rows without file, label or split"
    assert said in capsys.readouterr().out and (tmp_path / "out.csv").exists()


def test_class_folders_that_cannot_be_are_refused(
    run, photos: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def refused(out: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            tree(run, photos, out)
        said = capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before and ended.value.code == 2
        assert said.count("\n") == 1
        return said

    (tmp_path / "full").mkdir()
    written(tmp_path / "full" / "file", b"")
    for out in (tmp_path / "full", tmp_path / "decisions.csv"):
        assert "exists and is no empty folder; choose another" in refused(out)
    assert "where it would be read as more images" in refused(tmp_path / "photos" / "tree")
    assert f"there is no folder {tmp_path / 'no'}" in refused(tmp_path / "no" / "tree")
    with monkeypatch.context() as patch:  # a full disk at the second file
        patch.setattr(os, "link", lambda _, target: 1 / ("dog" not in str(target)))
        with pytest.raises(ZeroDivisionError):
            tree(run, photos, tmp_path / "tree")
        assert not list(tmp_path.glob("*tree*"))
    for label in ("..", "a/b", "a\\b", ".hidden", "two\nlines", "x" * 300):
        run.manifest.write_bytes(as_file(Manifest(["file_name", "label"], [["t.png", label]])))
        photos.write_text("file_name,decision,label\n")
        assert f"the label {label[:40]!r} cannot be a folder's name" in refused(tmp_path / "tree")
    run.manifest.write_bytes(b"file_name,label\ngone.png,cat\n")
    assert "none of the images is in" in refused(tmp_path / "tree")
    with pytest.raises(SystemExit):
        clean.main([str(run), "--take", str(photos)])
    assert "give --out FILE, --tree FOLDER, or both" in capsys.readouterr().err


def test_what_is_no_earlier_output_is_not_written_over(run: RunFolder, tmp_path: Path, capsys):
    def refused(out: Path, *words: object) -> str:
        with pytest.raises(SystemExit):
            clean.main([str(run), "--out", str(out), *map(str, words or ("--take", "flagged"))])
        return capsys.readouterr().err

    decisions = written(tmp_path / "d.csv", b"file_name,decision,label,changed_from\n")
    image = written(tmp_path / "cat.png", b"an image")
    files = (run.manifest, tmp_path / "list.csv", decisions, run.args, run.suspects, image)
    before = [out.read_bytes() for out in files]
    for out in (*files[:2], run.manifest_as(json_lines=True)):  # the latter is not there yet
        assert "is what the labels are read from" in refused(out, "--take", "flagged", "--force")
    assert "is what the labels are read from" in refused(decisions, "--take", decisions, "--force")
    for out in (run.args, run.suspects):
        assert "is no earlier output" in refused(out, "--take", "flagged", "--force")
    assert "cat.png: exists and is no earlier output" in refused(image)
    assert [out.read_bytes() for out in files] == before
    assert len(take(run, image, "--take", "flagged", "--force")) == 8
    os.mkfifo(tmp_path / "pipe")
    for words in ((), ("--take", "flagged", "--force")):
        assert "not a regular file" in refused(tmp_path / "pipe", *words)
    with pytest.raises(OSError, match="not a regular file"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo()
    assert "is empty" in refused(tmp_path / "out.csv", "--take", "")
    assert "keeps its form, CSV" in refused(tmp_path / "out.jsonl")
    broken = written(tmp_path / "d.csv", b"file_name,decision\n")
    assert refused(tmp_path / "out.csv", "--take", broken).endswith("'decision'\n")
    with pytest.raises(SystemExit):
        clean.main([str(tmp_path), "--take", "flagged", "--out", str(tmp_path / "out.csv")])
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("module", ["clean", "plots", "review"])
def test_a_reader_that_has_gone_leaves_no_traceback(module: str, run: RunFolder, tmp_path: Path):
    picture(np.random.default_rng(0), (9, 9, 9)).save(tmp_path / "o.png")
    words = {
        "clean": f'"{run}" --take flagged --out "{tmp_path}/out.csv"',
        "plots": f'"{run}"',
        "review": f'--suspects "{run.suspects}" --images "{tmp_path}" --out "{tmp_path}/a.html"',
    }
    line = f'"{sys.executable}" -m utils.{module} {words[module]} | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line], cwd=TOP, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")
