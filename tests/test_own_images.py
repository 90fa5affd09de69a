"""Own images: what is found, how it is read, what is kept of it, and all that can be amiss."""

import errno
import io
import os
import shutil
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.augmentation import whole
from data.datasets import load_images, make_loaders
from data.images import UNKNOWN
from data.loader import normalize
from data.own_images import cache, reading
from data.own_images.cache import cached_images
from data.own_images.files import find_images
from data.own_images.image_set import load_own_images
from data.own_images.reading import read_image, read_images
from data.splits import choose_positions
from tests.own_images import kill_itself, picture, write_folder
from utils.labels import Labels
from utils.manifest import as_file
from utils.pictures import MAX_BYTES, thumbnail, thumbnails

RED, SIZE = (200, 30, 30), 32


def save(path: Path, colour: tuple = RED, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(np.random.default_rng(zlib.crc32(str(path).encode())), colour).save(path, **options)
    return path


def save_all(folder: Path, *names: str) -> Path:
    for name in names:
        save(folder / f"{name}.png")
    return folder


def load(images: Path | None, data_dir: Path, manifest: Path | None = None, **how: object):
    return load_own_images(images, manifest, SIZE, data_dir, quiet=True, **how)


def test_a_folder_for_each_class(tmp_path: Path):
    names = ["a/1.webp", "a/2.JPG", "b/1.png", "b/deeper/3.bmp"]
    for name in reversed(names):
        save(tmp_path / "images" / name)
    images = load(tmp_path / "images", tmp_path)
    assert images.class_names == ["a", "b"] and images.test is None
    assert images.own.labels.tolist() == [0, 0, 1, 1]
    assert images.own.file_names(np.arange(4)) == names
    assert images.own.manifest.columns == ["file_name", "label"]
    assert [row[0] for row in images.own.manifest.rows] == names
    assert images.train.images.shape == (4, 3, SIZE, SIZE)
    assert images.train.clean_labels.tolist() == [UNKNOWN] * 4
    assert images.own.warnings == []


def test_mirrored_or_not(tmp_path: Path):
    write_folder(tmp_path / "pets", count=2, test=0)
    everywhere = whole(200, SIZE, SIZE, torch.device("cpu"))
    for how, share in (({}, 0.5), ({"flip": False}, 0)):
        augment = load(tmp_path / "pets", tmp_path, **how).augment
        window = augment(everywhere, torch.Generator().manual_seed(0))
        middle = SIZE // 2
        mirrored = window.columns[:, middle] < window.columns[:, middle - 1]
        assert mirrored.float().mean().item() == pytest.approx(share, abs=0.1 * (share > 0))
        assert window.columns[:, middle].unique().numel() > 4  # they are shifted all the same


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("train", "val"), ("Training", "TESTING"), ("TRAIN", "dev")],
)
def test_folders_of_training_and_test_images(train: str, test: str, tmp_path: Path):
    names = (f"{train}/b/1", f"{train}/a/1", f"{test}/a/2", f"{test}/c/3")
    images = load(save_all(tmp_path / "images", *names), tmp_path)
    assert images.class_names == ["a", "b"]
    assert images.test.images.shape == (1, 3, SIZE, SIZE)
    assert images.test.clean_labels.tolist() == [0]
    words = "1 test images do not count: no training image has their label"
    assert images.own.warnings[0] == words
    assert images.own.manifest.columns == ["file_name", "label", "split"]
    assert len(images.own.manifest.rows) == 4
    assert images.own.facts == ["2 training images of 2 classes (a 1, b 1), 1 test images"]
    assert images.own.labels.tolist() == [0, 1, 0] and images.own.judged == 1


@pytest.mark.parametrize(
    ("names", "train", "words"),
    [
        ("boat/1 train/2 train/steam/3", ["boat", "train", "train"], "train: read as a class"),
        ("boat/1 car/1 test/2", ["boat", "car", "test"], "test: read as a class"),
        ("train/a/1 test/a/1 val/a/1 raw/1", ["a"], "raw: not used beside train and test"),
        ("Training/a/1 train/1 dev/a/1", ["a"], "train: not used beside Training and dev"),
        ("pets/cat/1 cars/bus/1", ["cars", "pets"], "all images of cars, pets are in folders"),
        ("boat/1 train/steam/2", None, "are boat classes, or is train the train split"),
        ("cat/1 dog/1 Test/cat/2", None, "are cat, dog classes, or is Test the test split"),
        ("train/1 test/2", None, "no image to train on.*1.png: not used, for it is in no class's"),
        ("val/a/1 test/a/2", None, "no image to train on"),
        ("all/cat/1 all/dog/2", None, "labelled 'all'.*one level deeper"),
    ],
)
def test_splits_are_told_from_classes(names: str, train: list[str] | None, words: str, tmp_path):
    folder = save_all(tmp_path, *names.split())
    if train is None:
        with pytest.raises(ValueError, match=words):
            load(folder, tmp_path / "data")
        return
    found = find_images(folder, None)
    assert [found.manifest.cells("label")[row] for row in found.train] == train
    assert words in found.warnings[0]


def test_test_and_validation_images_are_judged_where_they_can_be(tmp_path: Path):
    names = ["test/b/2", "test/c/3", "test/a/4", "val/b/5", "val/a/seen"]
    folder = save_all(tmp_path / "images", "train/a/0", "train/b/1", *names)
    shutil.copy(folder / "train/a/0.png", folder / "val/a/seen.png")
    images = load(folder, tmp_path)
    own, every = images.own, np.arange(5)
    order = ["train/a/0", "train/b/1", "test/a/4", "test/b/2", "val/b/5"]
    assert own.file_names(every) == [f"{name}.png" for name in order]
    assert own.splits(every) == ["train", "train", "test", "test", "val"]
    assert own.labels.tolist() == [0, 1, 0, 1, 1] and own.judged == 3
    for place, path in enumerate(own.paths(every)):
        pixels = read_image(path, SIZE).pixels
        assert np.array_equal(images.train.images[place].permute(1, 2, 0), pixels)
    assert torch.equal(images.test.images, images.train.images[2:4])  # validation images are not
    assert len(own.manifest.rows) == 7
    assert own.facts[0].endswith("(a 1, b 1), 2 test images and 1 validation images")
    assert load(folder, tmp_path).own.sha256 == own.sha256  # the cache is as it was


def test_training_images_among_the_test_images_do_not_count(tmp_path: Path):
    names = ("train/a/1", "train/b/1", "test/a/new", "test/a/seen", "test/c/seen")
    folder = save_all(tmp_path / "images", *names)
    for name in "ac":
        shutil.copy(folder / "train/a/1.png", folder / f"test/{name}/seen.png")
    images = load(folder, tmp_path)
    assert images.test.clean_labels.tolist() == [0] and len(images.test.images) == 1
    assert images.own.facts[0].endswith(", 1 test images")
    words = "2 test images do not count, for they are training images as well"
    assert images.own.warnings[0] == f"{words}: test/a/seen.png, test/c/seen.png"


@pytest.mark.parametrize("shape, side", [((200, 63), 32), ((64, 80), 64)])
def test_images_of_64_pixels_and_more_are_brought_to_64(shape: tuple, side: int, tmp_path: Path):
    generator, folder = np.random.default_rng(0), tmp_path / "images"
    for name, size in (("a/1", (40, 32)), ("a/2", shape), ("b/1", shape)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(generator, (9, 9, 9), size).save(folder / f"{name}.png")
    (folder / "a" / "3.png").write_bytes(b"no image")
    images = load_images("folder", tmp_path, {"images": folder})
    assert images.train.images.shape == (3, 3, side, side)
    chosen = load_images("folder", tmp_path, {"images": folder, "image_size": 96})
    assert chosen.train.images.shape == (3, 3, 96, 96)


@pytest.mark.parametrize("top", ["", "train/"])
def test_results_and_data_among_the_images_are_left_out(top: str, tmp_path: Path):
    before = load(save_all(tmp_path, f"{top}a/1", f"{top}b/1"), tmp_path / "data").own
    save_all(tmp_path, "results/plot", "other/run/plot", f"{top}b/run/plot", "data/x/photo")
    for run in ("other/run", f"{top}b/run"):
        (tmp_path / run / "args.json").write_text("{}")
    options = {"images": tmp_path, "results_dir": str(tmp_path / "results")}
    after = load_images("folder", tmp_path / "data", options).own
    assert after.manifest == before.manifest and after.sha256 == before.sha256
    assert any("b/run: left out, for it holds results" in line for line in after.warnings)


def test_what_is_amiss_in_a_folder_is_told_line_by_line(tmp_path: Path):
    folder = save_all(tmp_path / "images", "a/1", "a/2", "b/1", "b/2", "single/1")
    whole = (folder / "a" / "1.png").read_bytes()
    for name, content in {
        "a/broken.png": b"no image",
        "a/cut.png": whole[:300],
        "a/no\ntes.txt": b"text",
        "a/.hidden.png": b"hidden",
        "loose.png": whole,
        "b/same.png": whole,
    }.items():
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    (folder / "a" / "loop").symlink_to(folder / "a", target_is_directory=True)
    (folder / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "b" / "pipe.png")
    images = load(folder, tmp_path)
    lines = images.own.warnings
    for name, words in {
        "broken.png": "cannot identify",
        "cut.png": "",
        "no\\ntes.txt": "no image by its ending",
        "loose.png": "in no class's folder",
        "empty": "no images of this class",
        "same.png": "labelled 'b' and not 'a': one of the two is wrong",
        "loop": "read already",
        "gone.png": "no such file",
        "pipe.png": "not a file",
        "'single'": "has a single image",
    }.items():
        (mine,) = (line for line in lines if name in line)
        assert words in mine, name
    assert len(lines) == 10 and not any("\n" in line for line in lines)
    assert images.class_names == ["a", "b", "single"]
    assert images.own.labels.tolist() == [0, 0, 1, 1, 1, 2]


def test_links_that_go_in_circles_end(tmp_path: Path):
    save_all(tmp_path, "a/1", "b/1")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a", target_is_directory=True)
    found = find_images(tmp_path, None)
    names = [found.name(row) for row in found.train]
    assert names == ["a/1.png", "a/to_b/1.png", "b/1.png", "b/to_a/1.png"]


def manifest_of(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder / "list.csv"


def test_a_manifest_with_true_labels_and_splits(tmp_path: Path):
    folder = save_all(tmp_path / "files", *"12345")
    lines = ["id,file_name,label,split,true_label"]
    lines += ["7,1.png,ü,train,a", "8,2.png,a,,", "9,3.png,a,Test,a", '10,4.png,ü,training,"?"']
    images = load(folder, tmp_path, manifest_of(tmp_path, *lines, "11,5.png,a,,"))
    assert images.class_names == ["a", "ü"]
    assert images.own.labels.tolist() == [1, 0, 1, 0, 0]
    assert images.train.clean_labels.tolist() == [0, UNKNOWN, UNKNOWN, UNKNOWN, 0]
    assert images.test.clean_labels.tolist() == [0]
    assert images.own.file_names(np.array([2, 0, 4])) == ["4.png", "1.png", "3.png"]
    assert images.own.splits(np.array([2, 4])) == ["train", "test"]
    assert len(images.own.warnings) == 1 and "count as unknown: ?" in images.own.warnings[0]


NFC, NFD = "M\u00e4use", "Ma\u0308use"  # as Linux and as macOS write it


def test_names_are_compared_whatever_their_unicode_form(tmp_path: Path):
    folder = save_all(tmp_path / "files", f"{NFD}/1", f"{NFC}/2", "cat/3")
    images = load(folder, tmp_path)
    counts = torch.bincount(images.own.labels).tolist()
    assert dict(zip(images.class_names, counts, strict=True)) == {NFC: 2, "cat": 1}
    lines = ["file_name,label,true_label", f"{NFC}/1.png,{NFD},{NFC}", f"{NFD}/2.png,{NFC},{NFD}"]
    lines += [f"{NFD}/1.png,cat,", "./cat/3.png,cat,", "cat//3.png,cat,"]
    listed = load(folder, tmp_path, manifest_of(tmp_path, *lines))
    assert listed.class_names == [NFC, "cat"] and listed.own.labels.tolist() == [0, 0, 1]
    assert listed.train.clean_labels.tolist() == [0, 0, UNKNOWN]
    assert torch.equal(listed.train.images[2], images.train.images[2])
    assert sum("is listed before" in line for line in listed.own.warnings) == 2
    assert len(listed.own.thumbnails(np.arange(3))) == 3


def test_classes_that_may_be_one_or_none_are_told(tmp_path: Path):
    labels = ["cat", "Cat", "cat ", "ca\u200bt", "1", "1.0", "dog", "NaN", "-1", "0", "-0"]
    folder = save_all(tmp_path / "files", *labels)
    lines = ["file_name,label", *(f"{name}.png,{name}" for name in labels)]
    told = load(folder, tmp_path, manifest_of(tmp_path, *lines)).own.warnings
    assert [line.split(":")[0] for line in told[:5]] == [
        "classes '-0', '0' differ in case, blanks or number form alone",
        "class '-1' reads like a missing label",
        "classes '1', '1.0' differ in case, blanks or number form alone",
        "classes 'Cat', 'cat', 'cat ', 'ca\\u200bt' differ in case, blanks or number form alone",
        "class 'NaN' reads like a missing label",
    ]


def test_a_link_upwards_leads_to_no_other_class(tmp_path: Path):
    pets = tmp_path / "pets"
    for name in "ab":
        save_all(pets / name, f"{name}1", f"{name}2")
    (pets / "a" / "up").symlink_to("..")
    own = load(pets, tmp_path).own
    assert own.labels.tolist() == [0, 0, 1, 1] and "a link to a folder" in own.warnings[0]


@pytest.mark.parametrize("separator", [",", ";"])
def test_rows_that_a_quotation_mark_swallows_are_refused(separator: str, tmp_path: Path):
    save_all(tmp_path, *"1234")
    whole = [["file_name", "label", "note"], *([f"{k}.png", "ab"[k % 2], ""] for k in range(1, 5))]
    for column in (1, 2):
        rows = [[*row] for row in whole]
        rows[1][column], rows[3][column] = f'"{rows[1][column]}', f'{rows[3][column]}"'
        manifest = manifest_of(tmp_path, *map(separator.join, rows))
        with pytest.raises(ValueError, match="spans 3 lines; is a quotation mark"):
            load(None, tmp_path, manifest)
    rows = [[*row[:2], '"two\nlines"' if k else "note"] for k, row in enumerate(whole)]
    assert (
        len(load(None, tmp_path, manifest_of(tmp_path, *map(separator.join, rows))).own.rows) == 4
    )


def test_a_heading_that_is_almost_one_is_told(tmp_path: Path):
    save_all(tmp_path, *"12")
    manifest = manifest_of(tmp_path, "file_name,label,Split", "1.png,a,test", "2.png,b,")
    told = load(None, tmp_path, manifest).own.warnings
    assert any("the column 'Split' does not count; is it 'split'" in line for line in told)


@pytest.mark.parametrize("name", ["\\u0000", "\\ud800"])
def test_what_is_no_text_is_named_with_its_line(name: str, tmp_path: Path):
    save_all(tmp_path, *"12")
    path = tmp_path / "list.jsonl"
    path.write_text(
        f'{{"file_name": "1.png", "label": "a"}}\n{{"file_name": "{name}", "label": "b"}}'
    )
    with pytest.raises(ValueError, match="line 2: its 'file_name' has a NUL or half a character"):
        load(None, tmp_path, path)


def test_broken_lines_of_a_manifest_are_told_and_left_out(tmp_path: Path):
    save_all(tmp_path, *"12345")
    lines = ["file_name,label,split", "1.png,a,", "2.png,b,", "4.png,a,", "5.png,b,"]
    broken = {
        "3.png": "has 1 cells",
        ",a,": "no file name",
        "3.png,,": "no label",
        "3.png,a,never": "'never'",
        "1.png,b,": "listed before",
        "gone.png,a,": "no such file",
    }
    images = load(None, tmp_path, manifest_of(tmp_path, *lines, *broken))
    assert images.own.labels.tolist() == [0, 1, 0, 1]
    for words, line in zip(broken.values(), images.own.warnings, strict=True):
        assert words in line


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["name,label", "1.png,a"], "has no column 'file_name'"),
        (["file_name,label,label", "1.png,a,b"], "two columns 'label'"),
        (["file_name,label"], "no image to train on"),
        ([""], "has no column 'file_name'"),
        (["file_name,label", "gone.png,a"], "can be read; .*gone.png: no such file; names are"),
        (["file_name,label", "1.png,a", "2.png,a"], "all images are labelled 'a'"),
        (["file_name,label", '"1.png,a' + 200_000 * "x"], "is a quotation mark never closed"),
        (["file_name,label", "1.png,a", '"2.png,b', '4.png,"b"'], "line 3: .*never closed"),
        (["file_name,label", "1.png,a", '2.png,"b', "3.png,a"], "line 3: .*never closed"),
        (["file_name,label", "1.png,a", '"2.png,b', '3.png",a'], "row 2 .* spans 2 lines; is a"),
        (["file_name,label", '1.png,"a', "2.png,b", '3.png,a"'], "row 1 .* spans 3 lines; is a"),
        (["file_name,label", r"a\1.png,a"], "row 1 .* has backslashes; write / between"),
        (["path;class", "1.png;a"], "has no column 'file_name'; there are 'path', 'class'; name"),
        (["file_name|label", "1.png|a"], r"there are 'file_name\|label'; name those of images"),
        (['{"file_name": "1.png"}'], "has no column 'label'; there are 'file_name'; name those"),
        (['{"file_name": "1.png", "label": "a"}', "", "[1]"], "line 3: is no JSON object"),
        (['{"file_name": "1.png",', '"label": "a"}'], "line 1: no whole JSON object .Expecting"),
        (
            ['{"label": "a"}', '{"label": 3}'],
            "line 2: its 'label' is a number, and a text in line 1",
        ),
        (['{"label": ["a"]}'], "line 1: its 'label' is a list or object; a text or number is"),
        (['{"label": "a", "label": "b"}'], "line 1: has the key 'label' twice"),
        (["file_name,label", "1.png,a", "2\0.png,b"], "a NUL character in line 3; is it UTF-16"),
        (["file_name,label", "1.png,ü"], "is UTF-16; save it as CSV in UTF-8"),
    ],
)
def test_a_manifest_of_no_use_is_refused(lines: list[str], words: str, tmp_path: Path):
    save_all(tmp_path, *"12")
    encoding = "utf-16" if words.startswith("is UTF-16") else "utf-8"
    with pytest.raises((ValueError, OSError), match=words):
        load(None, tmp_path, manifest_of(tmp_path, *lines, encoding=encoding))


SPACED, PLAIN = '{"file_name": "%s", "label": "%s"}', '{"file_name":"%s","label":%s}'


@pytest.mark.parametrize(
    ("name", "heading", "row", "labels"),
    [
        ("semicolons.csv", "n;file_name;label", "7;%s;%s", "ab"),
        ("tabs.tsv", "\ufefffile_name\tlabel\tnote", "%s\t%s\tx,y;z", "ab"),
        ("path=class.csv", "file_name,path,label,class", "x,%s,wrong,%s", "ab"),
        ("spaced.jsonl", "", "\ufeff" + SPACED, "ab"),
        ("numbers.json", "", PLAIN, "01"),
    ],
)
def test_manifests_in_other_forms(name: str, heading: str, row: str, labels: str, tmp_path: Path):
    """Read, and written as they were."""
    folder = save_all(tmp_path / "files", *"123")
    rows = [row % (f"{k}.png", labels[k == 2]) for k in (1, 2, 3)]
    rows[1:] = [each.removeprefix("\ufeff") for each in rows[1:]]
    text = "".join(f"{line}\n" for line in [heading, *rows] if line)
    manifest, columns = tmp_path / name, name[:10] if "=" in name else None
    manifest.write_text(text, encoding="utf-8")
    images = load(folder, tmp_path, manifest, columns=columns)
    assert images.class_names == [*labels] and images.own.labels.tolist() == [0, 1, 0]
    assert images.own.file_names(np.array([2, 0])) == ["3.png", "1.png"]
    assert as_file(images.own.manifest).decode() == text


def test_json_lines_without_a_label_are_told_and_left_out(tmp_path: Path):
    lines = [SPACED % pair for pair in (("1.png", "a"), ("2.png", "b"), ("3.png", "\\u00fc"))]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join([*lines, '{"file_name": "4.png"}', '{"label": null}']))
    images = load(save_all(tmp_path, *"1234"), tmp_path / "data", manifest)
    assert images.class_names == ["a", "b", "ü"] and len(images.own.manifest.rows) == 5
    told = [line.split(": ")[1] for line in images.own.warnings[-2:]]
    assert told == ["row 4 ('4.png') has no label", "row 5 ('') has no file name"]


def test_metadata_in_the_folder_is_used_where_it_has_labels(tmp_path: Path):
    folder, data = save_all(tmp_path / "images", "a/1", "b/2"), tmp_path / "data"
    csv, lines = folder / "metadata.csv", folder / "metadata.jsonl"
    csv.write_text("file_name,text\na/1.png,one\nb/2.png,two\n")
    images = load(folder, data)
    assert images.class_names == ["a", "b"]
    assert "metadata.csv: has no column 'label'; there are 'file_name'," in images.own.facts[0]
    assert load(folder, data, columns="file_name=text").class_names == ["one", "two"]
    with pytest.raises(ValueError, match="has no column 'breed'"):
        load(folder, data, columns="file_name=breed")
    csv.rename(folder / "other.csv")
    lines.write_text(
        '{"file_name": "a/1.png", "label": "x"}\n{"file_name": "b/2.png", "label": "y"}'
    )
    images = load(folder, data)
    assert images.class_names == ["x", "y"] and images.own.manifest.json_lines
    assert images.own.facts[0].startswith(f"{lines}: used as --manifest; names of folders")
    for name in ("Train/1", "Train/2", "dev/3"):
        save(folder / f"{name}.png")
    pairs = [("Train/1.png", "x"), ("Train/2.png", "y"), ("dev/3.png", "x")]
    lines.write_text("\n".join(SPACED % pair for pair in pairs))
    images = load(folder, data)
    assert images.own.splits(np.arange(3)) == ["train", "train", "val"] and images.own.judged == 1
    (folder / "other.csv").rename(csv)
    with pytest.raises(ValueError, match=r"has metadata.csv and metadata.jsonl; name one of them"):
        load(folder, data)
    given = load(folder, data, csv, columns="file_name=text")
    assert given.class_names == ["one", "two"] and not any("metadata" in x for x in given.own.facts)
    csv.unlink()
    lines.unlink()
    with pytest.raises(ValueError, match="--columns a=b: is for a manifest; there is no metadata"):
        load(folder, data, columns="a=b")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_metadata_in_the_folders_of_splits_are_one_manifest(ending: str, tmp_path: Path):
    folder, data = tmp_path / "images", tmp_path / "data"
    save_all(folder, "train/1", "train/deep/2", "test/1")

    def write(split: str, *pairs: tuple[str, str], heading: str = "label") -> Path:
        lines = [f"file_name,{heading}", *map(",".join, pairs)]
        if ending == "jsonl":
            lines = [SPACED % pair for pair in pairs]
        path = folder / split / f"metadata.{ending}"
        path.write_text("\n".join(lines))
        return path

    test = write("test", ("1.png", "x"))
    with pytest.raises(ValueError, match="all images are labelled"):
        load(folder, data)  # of no use without those of the training images
    train = write("train", ("1.png", "x"), ("deep/2.png", "y"), ("gone.png", "x"))
    images = load(folder, data)
    own = images.own
    assert images.class_names == ["x", "y"] and own.manifest.json_lines == (ending == "jsonl")
    assert own.files.name(own.files.train[0]) == "train/1.png" and own.splits(np.arange(2)) == [
        "train",
        "train",
    ]
    assert len(images.test.clean_labels) == 1 and "train/gone.png" in " ".join(own.warnings)
    names = f"test/metadata.{ending} and train/metadata.{ending}"
    assert own.facts[0].startswith(f"{folder}: {names}: used as --manifest")
    assert len(own.manifest.rows) == 4
    test.unlink()
    assert load(folder, data).own.facts[0].startswith(f"{train}: used as --manifest")
    if ending == "csv":
        write("test", ("1.png", "x"), heading="label,split\n")
        with pytest.raises(ValueError, match="have different columns; make one --manifest"):
            load(folder, data)
    (folder / "train" / "metadata.jsonl").write_text(SPACED % ("1.png", "x"))
    (folder / "train" / "metadata.csv").write_text("file_name,label\n")
    with pytest.raises(ValueError, match="name one of them by --manifest"):
        load(folder, data)


def test_a_folder_of_no_use_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for images, manifest, error, words in (
        (tmp_path / "empty", None, ValueError, "no image to train on"),
        (None, None, ValueError, "give --images or --manifest"),
        (tmp_path / "nowhere", None, FileNotFoundError, "no such folder"),
        (None, tmp_path / "nowhere.csv", FileNotFoundError, "no such file"),
    ):
        with pytest.raises(error, match=words):
            load(images, tmp_path, manifest)


def gradient(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 0 * red], 2).astype(np.uint8))


def pixels_of(path: Path, image: Image.Image, size: int = SIZE, **options: object) -> np.ndarray:
    image.save(path, **options)
    read = read_image(path, size)
    assert read.broken == "" and read.pixels.shape == (size, size, 3)
    return read.pixels.astype(int)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_short_side_resized_and_centre_cut_out(size: int, tmp_path: Path):
    wide = pixels_of(tmp_path / "wide.png", gradient(4 * size, 2 * size), size)
    assert abs(wide[:, 0, 0] - 64).max() < 4 and abs(wide[:, -1, 0] - 191).max() < 4
    assert wide[0, :, 1].max() < 4 and wide[-1, :, 1].min() > 251
    high = pixels_of(tmp_path / "high.png", gradient(size, 3 * size), size)
    assert high[:, 0, 0].max() < 4 and abs(high[0, :, 1] - 85).max() < 4


def test_an_image_of_the_size_is_left_as_it_is(tmp_path: Path):
    image = picture(np.random.default_rng(0), RED, (SIZE, SIZE))
    assert np.array_equal(pixels_of(tmp_path / "same.png", image), np.asarray(image))


def test_turned_as_exif_says(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right to show it
    turned = pixels_of(tmp_path / "turned.jpg", gradient(64, 64), exif=exif, quality=95)
    assert turned[0, :, 0].max() < 20 and turned[-1, :, 0].min() > 235  # red from top to bottom
    assert turned[:, 0, 1].min() > 235  # green is largest at the left


def of_mode(mode: str) -> Image.Image:
    """An image of one brightness, 128 of 255, in one of Pillow's modes."""
    if mode in ("I;16", "I"):
        kind = np.uint16 if mode == "I;16" else np.int32
        return Image.fromarray(np.full((40, 40), 128 * 257, kind))
    grey = Image.new("RGB", (40, 40), (128,) * 3)
    return grey.quantize(4) if mode == "P" else grey.convert(mode, dither=Image.Dither.NONE)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        *(("RGB", ending) for ending in ("png", "jpg", "webp", "bmp", "gif", "tif", "ppm")),
        *((mode, "png") for mode in ("L", "P", "LA", "RGBA", "1", "I;16")),
        *((mode, "tif") for mode in ("CMYK", "I;16", "I", "F")),
        ("CMYK", "jpg"),
    ],
)
def test_every_kind_of_image_becomes_rgb(mode: str, ending: str, tmp_path: Path):
    path = tmp_path / f"image.{ending}"
    assert abs(pixels_of(path, of_mode(mode)) - (255 if mode == "1" else 128)).max() <= 4
    assert thumbnail(path).startswith(b"\xff\xd8")  # JPEG


@pytest.mark.parametrize(
    ("ending", "kind", "white"),
    [("png", np.uint16, 4095), ("tif", np.int32, 2**20 - 1), ("tiff", np.float32, 1)],
)
def test_deep_images_are_read_on_one_scale(ending: str, kind: type, white: int, tmp_path: Path):
    shares = [0.02, 0.9, 0, 0.5]
    for name in "ab":
        (tmp_path / name).mkdir()
    for number, share in enumerate(shares):
        values = np.full((SIZE, SIZE), share * white, kind)
        values[0, 0] = 0
        Image.fromarray(values).save(tmp_path / "ab"[number // 2] / f"{number}.{ending}")
    images = load(tmp_path, tmp_path)
    read = images.train.images[:, 0, -1, -1].tolist()
    assert read == pytest.approx([255 * share for share in shares], abs=1)
    fact = images.own.facts[1]
    assert fact.startswith("4 images have more than 8 bits") and f"{white} is white" in fact
    assert images.own.warnings == [f"1 images are of a single colour: b/2.{ending}"]
    pages = images.own.thumbnails(np.arange(4))
    shown = [Image.open(io.BytesIO(page)).getpixel((9, 9))[0] for page in pages]
    assert shown == pytest.approx(read, abs=2)  # the page shows what was read


def test_pixels_that_are_no_numbers_are_black_and_told(tmp_path: Path):
    values = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    for name, corner in (("a", 0), ("b", np.nan), ("c", np.inf)):
        (tmp_path / name).mkdir()
        values[-1, -1] = corner
        Image.fromarray(values).save(tmp_path / name / "1.tif")
    images = load(tmp_path, tmp_path)
    assert images.train.images[:, 0, [0, -1], [0, -1]].T.tolist() == [[0, 0, 0], [127, 0, 0]]
    assert "-1 is black and 1 is white; 2 have NaN" in images.own.facts[1]


def test_what_is_transparent_is_white(tmp_path: Path):
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    image[:, : SIZE // 2, 3] = 255  # the left half is black, the right one transparent
    pixels = pixels_of(tmp_path / "half.png", Image.fromarray(image))
    assert pixels[:, : SIZE // 2].max() == 0 and pixels[:, SIZE // 2 :].min() == 255


def test_processes_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [save(tmp_path / f"{k}.png", (k, k, k)) for k in range(9)] + [tmp_path / "gone.png"]
    alone = list(read_images(paths, SIZE, processes=1))
    monkeypatch.setattr(reading, "FEW", 2)
    monkeypatch.setattr(reading, "CHUNK", 4)
    for one, other in zip(alone, read_images(paths, SIZE, processes=2), strict=True):
        assert one[1:] == other[1:]
        assert (one.pixels is None) == (other.pixels is None)
        assert one.pixels is None or np.array_equal(one.pixels, other.pixels)


def test_a_reading_process_that_is_killed_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "FEW", 2)
    monkeypatch.setattr(reading, "_read_chunk", kill_itself)
    with pytest.raises(OSError, match="was killed, most likely for want of memory"):
        list(read_images([Path("a.png")] * 4, SIZE, processes=2))


def test_what_is_too_large_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "huge.ppm").write_bytes(b"P6 100000 100000 255\n")
    (tmp_path / "long.png").touch()
    os.truncate(tmp_path / "long.png", MAX_BYTES + 1)  # a sparse file
    (tmp_path / "text.png").write_text("text")
    for name, words in {
        "huge.ppm": "has more than 178,956,970 pixels",
        "long.png": "has 715,827,881 bytes; at most 715,827,880 are read",
        "text.png": "cannot identify image file",
    }.items():
        broken = read_image(tmp_path / name, SIZE).broken
        assert words in broken and "0x" not in broken
    wide = save(tmp_path / "wide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns of more
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(wide, SIZE).broken == "" and len(thumbnails([wide])) == 1


def cached(paths: list[Path], data: Path, size: int = SIZE):
    return cached_images(paths, [path.name for path in paths], size, data, quiet=True)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / f"{k}.png") for k in range(3)]


def test_images_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, data, reads = tmp_path / "images", tmp_path / "data", []
    paths = [save(folder / f"{k}.png", (60 * k, 0, 0)) for k in range(4)]
    paths[2].write_bytes(b"broken")
    real = cache.read_images
    monkeypatch.setattr(cache, "read_images", lambda *a: reads.append(a) or real(*a))
    first = cached(paths, data)
    assert first.read == [0, 1, 3] and list(first.broken) == [2]
    assert first.pixels.shape == (3, SIZE, SIZE, 3)
    again = cached(paths, data)
    assert len(reads) == 1 and np.array_equal(again.pixels, first.pixels)
    assert again[1:] == first[1:]
    cached(paths, data, 64)
    assert len(reads) == 2  # another size
    os.utime(paths[0], ns=(1, 1))
    cached(paths, data)
    assert len(reads) == 3  # a file has changed
    for k in (0, 3):
        paths[k] = save(folder / f"{k}.bmp", (60 * k, 0, 0))
        os.utime(paths[k], ns=(1, 1))
    before = cached(paths, data).pixels.copy()
    for old, new in ((paths[0], folder / "x"), (paths[3], paths[0]), (folder / "x", paths[3])):
        old.rename(new)
    assert np.array_equal(cached(paths, data).pixels[[2, 1, 0]], before)  # same sizes and times
    assert {path.suffix for path in (data / "own_images").glob("[!.]*")} == {".pixels", ".json"}
    assert all(path.stat().st_mtime_ns == 1 for path in paths[:1])  # nothing was written there


def test_a_damaged_cache_is_refused(three: list[Path], tmp_path: Path):
    cached(three, tmp_path)
    (pixels,) = (tmp_path / "own_images").glob("*.pixels")
    record = pixels.with_suffix(".json")
    whole, text = pixels.read_bytes(), record.read_bytes()
    for path, good, *damages in (
        (pixels, whole, whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-10], b""),
        (record, text, text.replace(b"0,", b"1,", 1), b"{}", b"[", text.replace(b"read", b"red")),
    ):
        for damaged in damages:
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"damaged.*remove .* read again"):
                cached(three, tmp_path)
        path.write_bytes(good)
        cached(three, tmp_path)
    pixels.unlink()
    with pytest.raises(ValueError, match="damaged"):
        cached(three, tmp_path)


def test_a_failure_of_the_system_is_not_kept(three: list[Path], tmp_path: Path, monkeypatch):
    errors = {three[0]: MemoryError(), three[1]: OSError(errno.EIO, "Input/output error", "x.png")}
    whole = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path in errors:
            raise errors[path]
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        first = cached(three, tmp_path)
    assert first.read == [2]
    assert first.broken == {0: "not enough memory to read it", 1: "Input/output error"}
    assert cached(three, tmp_path).read == [0, 1, 2]


def test_a_kill_while_reading_leaves_nothing_half_done(three, tmp_path: Path, monkeypatch):
    def interrupted(*_: object):
        yield read_image(three[0], SIZE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache, "read_images", interrupted)
        cached(three, tmp_path)
    assert not list((tmp_path / "own_images").glob("*.json"))
    assert len(cached(three, tmp_path).read) == 3


def test_loaders_share_the_mapped_images(tmp_path: Path):
    write_folder(tmp_path / "images", count=10, test=0)
    images = load(tmp_path / "images", tmp_path)
    labels = images.own.labels
    positions = choose_positions(len(labels), 0.2, seed=0, limit=None)
    all_labels = Labels(labels, images.train.clean_labels, images.class_names, positions)
    loaders = make_loaders(images, all_labels, 8, torch.Generator(), augment_scored=False)
    assert loaders.test is None
    start = images.train.images.data_ptr()
    for loader, part in zip(loaders[:3], positions, strict=True):
        assert loader.table.pixels.data_ptr() == start  # nothing is copied
        loader.augmented, seen = False, torch.zeros(len(part), dtype=torch.bool)
        for batch, given, index in loader:
            place = torch.from_numpy(part)[index]
            expected = normalize(images.train.images[place], loader.mean, loader.std)
            assert torch.equal(batch, expected) and torch.equal(given, labels[place])
            seen[index] = True
        assert seen.all()


def test_mean_and_standard_deviation_are_those_of_the_training_images(tmp_path: Path):
    write_folder(tmp_path / "images", count=6)
    images = load(tmp_path / "images", tmp_path)
    values = images.train.images[: -images.own.judged] / 255
    assert torch.allclose(values.mean((0, 2, 3)), torch.tensor(images.mean), atol=1e-4)
    assert torch.allclose(values.std((0, 2, 3), correction=0), torch.tensor(images.std), atol=1e-4)
