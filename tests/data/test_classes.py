"""What users really have in a folder or .zip: splits, litter, odd names, labels with mistakes."""

import contextlib
import io
import json
import os
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from ect.data import folder, sources
from ect.data.batches import Images
from ect.data.classes import split_of, splits_among
from ect.data.folder import below_top, fingerprint
from ect.data.prepare import run

BASE = {"source": "images", "normalize": "unit", "held_out": 1, "split_seed": 0}


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def content_of(names):
    """(name, bytes) of files by name: the given text, or a PNG of its own."""
    listed = names.items() if isinstance(names, dict) else [(name, None) for name in names]
    for seed, (name, value) in enumerate(listed):
        yield name, png(seed) if value is None else value.encode()


def folder_of(root, names):
    for name, content in content_of(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zip_of(path, names):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")  # duplicate names
        for name, content in content_of(names):
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # as it is: ZipInfo would normalize it
            file.writestr(entry, content)
    return path


def images(path, **settings):
    return sources.images(BASE | {"path": str(path)} | settings)


def refused(path, *words, **settings):
    with pytest.raises(ValueError) as caught:
        run(BASE | {"path": str(path)} | settings, path.parent / "out" / "d", 2)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.isprintable() and len(text) < 1000 and not (path.parent / "out" / "d").exists()


def labelled(labels, **more):
    return {"a.png": None, "b.png": None, "c.png": None,
            "dataset.json": json.dumps({"labels": labels}), **more}  # fmt: skip


SPLITS = {
    "Training, Testing": ["Training/cat/a.png", "Testing/cat/b.png"],
    "capitals": ["TRAIN/cat/a.png", "TEST/cat/b.png"],
    "STL-10": ["train/cat/a.png", "test/cat/b.png", "unlabeled/c.png"],
    "dev": ["train/cat/a.png", "dev/cat/b.png"],
    "valid": ["train/cat/a.png", "valid/cat/b.png", "test/cat/c.png"],
    "val of COCO": ["train2017/a.png", "val2017/b.png"],
    "eval": ["train/cat/a.png", "eval/cat/b.png"],
    "hold-out": ["train/cat/a.png", "hold-out/cat/b.png"],
    "held_out": ["train/cat/a.png", "Held_Out/cat/b.png"],
    "sets": ["trainset/cat/a.png", "testset/cat/b.png"],
    "words around": ["train_images/cat/a.png", "images-test/cat/b.png"],
    "FER2013": ["Training/cat/a.png", "PublicTest/cat/b.png", "PrivateTest/cat/c.png"],
    "Intel": ["seg_train/cat/a.png", "seg_test/cat/b.png", "seg_pred/c.png"],
    "CycleGAN": ["trainA/a.png", "trainB/b.png", "testA/c.png", "testB/d.png"],
    "beside others": ["train/a.png", "test/b.png", "figures/c.png"],
    "in each class": ["cat/train/a.png", "cat/test/b.png", "dog/train/c.png", "dog/test/d.png"],
    "deep": ["all/2020/train/a.png", "all/2020/val/b.png", "all/2021/c.png"],
}


@pytest.mark.parametrize("classes", [None, "folders"])
@pytest.mark.parametrize("names", SPLITS.values(), ids=SPLITS)
def test_training_and_test_images_are_never_mixed(tmp_path, names, classes):
    for path in (folder_of(tmp_path / "photos", names), zip_of(tmp_path / "photos.zip", names)):
        refused(path, "are splits, not classes; allowed: a path to one", classes=classes)


ONLY_SPLITS = (
    ["train/a.png", "unlabeled/b.png"], ["test/a.png", "val/b.png"],
    ["fold_1/a.png", "fold_2/b.png"], ["train/a.png", "extra/b.png"],
)  # fmt: skip


@pytest.mark.parametrize("names", ONLY_SPLITS)
def test_folders_that_are_all_splits_are_no_classes_but_one_set(tmp_path, names):
    path = folder_of(tmp_path / "photos", names)
    refused(path, "are splits, not classes", classes="folders")
    assert len(images(path).names) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["train", "car", "plane"], ["valid", "invalid"], ["test", "control"],
        ["extra_large", "extra_small"], ["train_station", "test_tube"], ["training", "match"],
        ["développement", "devil"],
    ],
)  # fmt: skip
def test_classes_with_names_like_splits_stay_classes(names):
    assert splits_among(names) == splits_among(names, classes=True) == []


def test_a_split_has_many_names():
    for name in ("train", "TRAINING", "Train2017", "train_set", "trn", "trainImages"):
        assert split_of(name) == ("train", "")
    assert split_of("seg_train") == split_of("Seg-Training") == ("train", "seg")
    assert split_of("cat") == (None, "cat") and split_of("train_test")[0] is None


LITTER = (
    "@eaDir/a.png", "__MACOSX/a.png", ".thumbnails/a.png", ".ipynb_checkpoints/a.png",
    "#recycle/a.png", "$RECYCLE.BIN/a.png", "lost+found/a.png", "@Recycle/a.png",
    "System Volume Information/a.png", ".@__thumb/a.png", "Thumbs.db", "desktop.ini",
)  # fmt: skip


@pytest.mark.parametrize("litter", LITTER)
def test_litter_is_no_class_at_any_depth(tmp_path, litter):
    clean = ["cat/a.png", "dog/b.png"]
    names = {name: None for name in clean} | {litter: "x", f"cat/{litter}": "x"}
    path = folder_of(tmp_path / "photos", names)
    for source in (path, zip_of(tmp_path / "photos.zip", names)):
        found = images(source, classes="folders")
        assert (found.names, found.classes) == (clean, ["cat", "dog"])
        assert found.about == {"ignored": {}} and images(source).names == clean
    before = fingerprint(path)
    (path / litter).write_bytes(b"more")
    assert fingerprint(path) == before


EDM = {"00000/img00000000.png": None, "00000/img00000999.png": None, "00001/img00001000.png": None}


@pytest.mark.parametrize("top", ["", "cifar/"])
@pytest.mark.parametrize("labels", [None, [[name, k] for k, name in enumerate(EDM)], "absent"])
def test_an_edm_archive_has_no_class_folders(tmp_path, top, labels):
    names = {top + name: None for name in EDM}
    if labels != "absent":
        names["dataset.json"] = json.dumps({"labels": labels})
    for path in (folder_of(tmp_path / "edm", names), zip_of(tmp_path / "edm.zip", names)):
        refused(path, "EDM's", "allowed: classes: null", classes="folders")


def test_labels_and_class_folders_are_one_too_many(tmp_path):
    names = {"cat/a.png": None, "dog/b.png": None}
    labels = json.dumps({"labels": [["cat/a.png", 0], ["dog/b.png", 1]]})
    path = zip_of(tmp_path / "both.zip", names | {"dataset.json": labels})
    refused(path, "found EDM's dataset.json with dataset.classes: folders", classes="folders")
    for other in ('{"title": "cats"}', "no JSON", "[1]"):  # of another program
        path = zip_of(tmp_path / "other.zip", names | {"dataset.json": other})
        assert images(path, classes="folders").classes == ["cat", "dog"]


SAME_ENTRIES = {
    "dot": "./{}", "dots": "././{}", "absolute": "/{}", "doubled": "//{}", "drive": "C:/{}",
    "inside": "x/../x/{}", "top": "./photos//{}",
}  # fmt: skip


@pytest.mark.parametrize("pattern", SAME_ENTRIES.values(), ids=SAME_ENTRIES)
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_an_entry_is_found_however_its_name_begins(tmp_path, pattern, slash):
    names = [pattern.format(name).replace("/", slash) for name in ("cat/a.png", "dog/b.png")]
    path = zip_of(tmp_path / "z.zip", [*names, pattern.format("cat/").replace("/", slash)])
    if ".." in pattern:
        return refused(path, "above the archive's top", classes="folders")
    found = images(path, classes="folders")
    assert len(found.names) == 2 and found.classes == ["cat", "dog"]
    assert found.about == {"ignored": {}}
    assert found.read(0).shape == (4, 4, 3)


@pytest.mark.parametrize("form", ["./{}", "/{}", "{}"])
def test_labels_name_entries_in_any_form(tmp_path, form):
    entries = {form.format("x/a.png"): None, form.format("x/b.png"): None}
    for written in ("{}", "./{}", "/{}"):
        labels = [[written.format("x/a.png").replace("/", "\\"), 1], [written.format("x/b.png"), 0]]
        entries[form.format("dataset.json")] = json.dumps({"labels": labels})
        found = images(zip_of(tmp_path / "z.zip", entries))
        assert (found.classes, found.labels) == (["0", "1"], [1, 0])


def test_a_backslash_in_a_file_name_is_kept(tmp_path):
    names = {"a\\b.png": None, "c.png": None}
    labels = json.dumps({"labels": [["a\\b.png", 1], ["c.png", 0]]})
    found = images(folder_of(tmp_path / "photos", names | {"dataset.json": labels}))
    assert (found.names, found.labels) == (["a\\b.png", "c.png"], [1, 0])


ARCHIVES = {
    "twice": (["a.png", "a.png"], ["holds 'a.png' twice"]),
    "twice in other words": (["./a.png", "a.png"], ["holds 'a.png' twice"]),
    "twice by slashes": (["x\\a.png", "x/a.png"], ["holds 'x/a.png' twice"]),
    "twice by top": (["/x/a.png", "x/a.png"], ["holds 'x/a.png' twice"]),
    "above": (["../a.png", "b.png"], ["'../a.png' is a name above the archive's top"]),
    "above within": (["x/../../a.png", "b.png"], ["above the archive's top"]),
    "mixed": (["/x/a.png", "y/b.png"], ["'/x/a.png' is an absolute name", "'y/b.png' a relative"]),
    "mixed drives": (["C:\\x\\a.png", "y/b.png"], ["is an absolute name", "'y/b.png' a relative"]),
    "labels twice": (
        {"a.png": None, "./dataset.json": "{}", "dataset.json": "{}"},
        ["holds 'dataset.json' twice"],
    ),
    "one folder": (["discs/a.png", "discs/b.png"], ["found one class folder, 'discs'"]),
    "one folder by case": (["Cat/a.png", "cat/b.png"], ["'Cat' and 'cat' differ in case"]),
    "control": (["a\x1b[31m/x.png", "b\n/y.png", "z.png"], ["'z.png' is not in a class folder"]),
    "control in a class": (["\x1b[2J.png", "b/y.png"], ["'\\x1b[2J.png' is not in a class"]),
    "one folder by a space": (["cat/a.png", "cat /b.png"], ["'cat' and 'cat ' differ in case,"]),
    "one folder by a dot": (["cat/a.png", "cat./b.png"], ["'cat' and 'cat.' differ in case,"]),
    "newline": (["a\nb/x.png", "A\nB/y.png"], ["'A\\nB' and 'a\\nb' differ in case"]),
}


@pytest.mark.parametrize("names, words", ARCHIVES.values(), ids=ARCHIVES)
def test_a_mistake_in_an_archive_is_one_line(tmp_path, names, words):
    refused(zip_of(tmp_path / "z.zip", names), "z.zip: ", *words, classes="folders")


def test_litter_may_be_there_twice(tmp_path):
    names = [".DS_Store", "./.DS_Store", "a.png"]
    assert images(zip_of(tmp_path / "z.zip", names)).names == ["a.png"]


ABC = [["a.png", 0], ["b.png", 1], ["c.png", 2]]
LABELS = {
    "from 1 on": (labelled([["a.png", 1], ["b.png", 2], ["c.png", 2]]), ["no image of class 0"]),
    "a gap": (labelled([["a.png", 0], ["b.png", 2], ["c.png", 2]]), ["no image of class 1"]),
    "a million": (
        labelled([["a.png", 0], ["b.png", 10**6], ["c.png", 0]]),
        ["classes up to 1000000", "no image of class 1; allowed", "here 0 to 1"],
    ),
    "very many": (
        labelled([["a.png", 0], ["b.png", 10**300], ["c.png", 0]]),
        ["..., but no image"],
    ),
    "two classes": (labelled([*ABC, ["a.png", 1]]), ["names 'a.png' twice", "classes 0 and 1"]),
    "two by form": (labelled([*ABC, ["./a.png", 1]]), ["names 'a.png' twice", "classes 0 and 1"]),
    "true is no class": (labelled([*ABC, ["a.png", True]]), ["twice", "0 and True"]),
    "fraction": (labelled([["a.png", 0.5], *ABC[1:]]), ["'a.png' in dataset.json is 0.5"]),
    "negative": (labelled([["a.png", -1], *ABC[1:]]), ["'a.png' in dataset.json is -1"]),
    "NaN": (labelled([["a.png", float("nan")], *ABC[1:]]), ["'a.png' in dataset.json is nan"]),
    "text": (labelled([["a.png", "\x1b[2J\n"], *ABC[1:]]), ["is '\\x1b[2J\\n'; allowed"]),
    "long": (labelled([["a.png", "x" * 9999], *ABC[1:]]), ["xxx..."]),
    "one missing": (labelled(ABC[:2]), ["the class of 'c.png' in dataset.json is None"]),
    "one lost": (labelled([*ABC, ["\x1b.png", 0]]), ["names '\\x1b.png', but there is no such"]),
    "case": (labelled([["A.png", 0], *ABC[1:]]), ["the class of 'a.png' in dataset.json is None"]),
    "no list": (
        labelled({}),
        ["dataset.json is not", "labels is {}", '; allowed: {"labels": [[name'],
    ),
    "no pairs": (labelled([[1, 2]]), ["dataset.json is not"]),
    "numbers": (labelled(3), ["dataset.json is not", "labels is 3"]),
    "keys twice": (
        labelled(ABC, **{"dataset.json": '{"labels": [], "labels": [["a.png", 0]]}'}),
        ["dataset.json is not", "'labels' is there twice"],
    ),
    "deep": (labelled(ABC, **{"dataset.json": "[" * 100000}), ["dataset.json is not"]),
    "torn": (labelled(ABC, **{"dataset.json": '{"labels": [["a.p'}), ["dataset.json is not"]),
    "another case": (
        {"a.png": None, "Dataset.JSON": json.dumps({"labels": [["a.png", 0]]})},
        ["found 'Dataset.JSON'; allowed: dataset.json at the top"],
    ),
}


@pytest.mark.parametrize("names, words", LABELS.values(), ids=LABELS)
def test_a_mistake_in_the_labels_is_one_line(tmp_path, names, words):
    for path in (folder_of(tmp_path / "photos", names), zip_of(tmp_path / "z.zip", names)):
        refused(path, *words)


def test_a_damaged_label_file_in_an_archive_is_named(tmp_path):
    path = zip_of(tmp_path / "z.zip", labelled(ABC))
    content = path.read_bytes()
    at = content.index(b'{"labels"')
    path.write_bytes(content[:at] + b"?" + content[at + 1 :])  # another checksum
    refused(path, "dataset.json is not", "CRC")


@pytest.mark.parametrize("version", [90, 255])
def test_an_archive_of_a_later_version_is_named(tmp_path, version):
    path = zip_of(tmp_path / "z.zip", labelled(ABC))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = version
    path.write_bytes(content)
    refused(path, f"z.zip: not a readable .zip (zip file version {version / 10})")


def test_an_archive_whose_directory_is_before_its_start(tmp_path):
    path = zip_of(tmp_path / "z.zip", labelled(ABC))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x05\x06") + 12 + 3] = 255  # the directory's size
    path.write_bytes(content)
    refused(path, "z.zip: not a readable .zip")


@pytest.mark.parametrize("labels", [None, [], ABC, [*ABC, ABC[0]]])
def test_labels_without_a_mistake(tmp_path, labels):
    found = images(folder_of(tmp_path / "photos", labelled(labels)))
    assert (found.classes, found.labels) == (
        (["0", "1", "2"], [0, 1, 2]) if labels else (None, [0] * 3)
    )


def test_a_link_to_itself_is_an_image_that_cannot_be_read_or_nothing(tmp_path):
    path = folder_of(tmp_path / "photos", ["a/1.png", "a/2.png", "b/3.png"])
    first = fingerprint(path)
    (path / "a" / "loop").symlink_to("loop")
    (path / "a" / "one").symlink_to("two")
    (path / "a" / "two").symlink_to("one")
    (path / "b" / "up").symlink_to("..")
    assert fingerprint(path) == first
    found = images(path, classes="folders")
    assert found.names == ["a/1.png", "a/2.png", "b/3.png"]
    assert found.about == {"ignored": {"no suffix": 3}}
    (path / "a" / "loop.png").symlink_to("loop.png")
    refused(path, "'a/loop.png' cannot be read", classes="folders")


@pytest.mark.parametrize("name", ["a/x.png", "dataset.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_not_read(tmp_path, name, kind):
    path = folder_of(tmp_path / "photos", ["a/1.png", "a/2.png"])
    if kind == "pipe":
        os.mkfifo(path / name)
    else:
        (path / name).symlink_to("/dev/zero")
    refused(path, name, "not a regular file")


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder whose subfolder `b` may not be read, by root neither."""
    path, scandir = folder_of(tmp_path / "photos", ["a/1.png", "a/2.png", "b/3.png"]), os.scandir

    def forbidding(folder):
        if os.path.basename(folder) == "b":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(folder.os, "scandir", forbidding)
    return path


@pytest.mark.parametrize("on_error", [None, "stop", "skip"])
def test_a_folder_that_may_not_be_read_stops_the_job(locked, tmp_path, on_error):
    """As a file without permission does: what is in it may be intact."""
    with pytest.raises(ValueError, match="its folder 'b/' cannot be read: Permission denied; al"):
        run(BASE | {"path": str(locked), "on_error": on_error}, tmp_path / "d", 2)
    assert not (tmp_path / "d").exists() and not (tmp_path / "skipped.txt").exists()


def test_a_link_to_where_we_may_not_look_stops_the_job(tmp_path, monkeypatch):
    class Entry:
        name, path = "link", "link"

        def is_dir(self):
            raise PermissionError(13, "Permission denied", "link")

    path = folder_of(tmp_path / "photos", ["a/1.png", "a/2.png"])
    monkeypatch.setattr(folder.os, "scandir", lambda _: contextlib.nullcontext([Entry()]))
    refused(path, "its folder 'link/' cannot be read: Permission denied")


def test_the_fingerprint_of_a_folder_that_may_not_be_read(locked, monkeypatch):
    closed = fingerprint(locked)
    monkeypatch.undo()
    assert closed != fingerprint(locked)


def test_names_are_printed_on_one_line(tmp_path):
    names = {"a\n\x1b[2J.png": "no image", "b.png": None, "c.png": None, "d.png": None}
    path = folder_of(tmp_path / "photos", names)
    refused(path, "'a\\n\\x1b[2J.png' cannot be read")
    run(BASE | {"path": str(path), "on_error": "skip"}, tmp_path / "d", 2)
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("a\\n\\x1b[2J.png: ") and lines[0].isprintable()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["skipped"][0][0] == "a\n\x1b[2J.png"


def test_a_class_without_training_images_keeps_its_number_and_is_noted(tmp_path, capsys):
    names = {f"{'abc'[k % 3]}/{k}.png": None for k in range(6)}
    names |= {"c/2.png": "torn", "c/5.png": "torn"}
    path = folder_of(tmp_path / "photos", names)
    settings = BASE | {"path": str(path), "on_error": "skip", "classes": "folders"}
    run(settings, tmp_path / "d", 2)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["classes"] == Images(tmp_path / "d").classes == ["a", "b", "c"]
    assert record["classes_without_training_images"] == ["c"]
    assert capsys.readouterr().err.splitlines()[-1] == "ect prepare: no training image of c"


def test_below_top():
    cases = {"a/b": "a/b", "./a/./b": "a/b", "\\a\\b": "a/b", "C:\\a/b": "a/b", "": "", "/": "",
             "a//b/": "a/b", "../a": "../a", "1:2.png": "1:2.png"}  # fmt: skip
    assert {name: below_top(name) for name in cases} == cases
