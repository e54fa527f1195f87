"""Parquet files of HF `datasets` and webdataset's .tar shards: every image once with its class,
splits by the shards' names, and what is wrong is one line."""

import datetime
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from ect.config.dataset import Dataset
from ect.data import sources
from ect.data.batches import Images
from ect.data.folder import fingerprint
from ect.data.look import facts
from ect.data.prepare import run
from ect.data.shards import set_of, shards
from ect.runtime.record import digest

arrow = pytest.importorskip("pyarrow")
NAMES = ["cat", "dog", "owl"]
BASE = {"normalize": "unit", "held_out": 2, "split_seed": 0}


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)


def png(seed):
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, "png")
    return buffer.getvalue()


def tar(path, members):
    """A .tar of {name: content}; a str is a symbolic link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                file.addfile(entry)
            else:
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
    return path


def samples(seeds, **more):
    """The members of images with classes in .cls and .json."""
    found = {}
    for seed in seeds:
        found[f"{seed:03}.png"] = png(seed)
        found[f"{seed:03}.cls"] = str(seed % 3).encode()
        found[f"{seed:03}.json"] = json.dumps({"kind": NAMES[seed % 3]}).encode()
    return found | more


def parquet(path, seeds, features=True, images=None, classes=None, kinds=None, **columns):
    """A file as `datasets` writes it; `features` are those in its metadata, or True for these."""
    from pyarrow.parquet import write_table

    seeds, form = list(seeds), arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    values = [{"bytes": png(s), "path": f"/etc/{s}.png"} for s in seeds]
    values = values if images is None else images
    label = [s % 3 for s in seeds] if classes is None else classes
    table = arrow.table({"image": arrow.array(values, form), "label": label, **columns})
    if features is True:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    if features:
        features = json.dumps({"info": {"features": features | (kinds or {})}})
        table = table.replace_schema_metadata({"huggingface": features})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, path, row_group_size=3)
    return path


def settings_of(path, **changes):
    source = "parquet" if list(path.rglob("*.parquet")) or path.suffix == ".parquet" else None
    return BASE | {"source": source or "webdataset", "path": str(path)} | changes


def prepared(path, out, **changes):
    settings = settings_of(path, **changes)
    run({key: value for key, value in settings.items() if value is not None}, out, 2)
    return out


def rows(file, splits=("train", "test")):
    found = []
    for split in splits:
        images = Images(file, split)
        found += [(x.tobytes(), (images.classes or [None])[k])
                  for x, k in zip(images.pixels, images.labels)]  # fmt: skip
    return sorted(found, key=repr)


def wanted(seeds, names=NAMES):
    return sorted(((pixels(s).tobytes(), names[s % 3]) for s in seeds), key=repr)


def refused(path, *words, **changes):
    with pytest.raises(ValueError) as caught:
        prepared(path, path.parent / "out" / "d", **changes)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.isprintable() and len(text) < 1000 and not (path.parent / "out" / "d").exists()


@pytest.fixture(params=["parquet", "tar", "tar by json", "parquet, one file"])
def stored(request, tmp_path):
    """(path, settings, names of classes) of twelve images in three shards."""
    folder = tmp_path / "shards"
    for shard in range(3):
        seeds, number = range(4 * shard, 4 * shard + 4), f"{shard:05}-of-00003"
        if request.param == "parquet":
            parquet(folder / f"train-{number}-a09b74b3ef9c3b56.parquet", seeds)
        elif request.param.startswith("tar"):
            tar(folder / f"photos-{shard:06}.tar", samples(seeds))
    if request.param == "parquet, one file":
        return parquet(tmp_path / "photos.parquet", range(12)), {}, NAMES
    label = {"label": "kind"} if "json" in request.param else {}
    return folder, label, ["0", "1", "2"] if request.param == "tar" else NAMES


def test_every_image_is_there_once_with_its_class(stored, tmp_path):
    path, label, names = stored
    out = prepared(path, tmp_path / "d", **label)
    assert rows(out) == wanted(range(12), names)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["images"] == {"train": 10, "test": 2} and record["classes"] == names
    files = [path] if path.is_file() else sorted(path.iterdir())
    assert list(record["inputs"]) == [str(file) for file in files]
    known = facts(Dataset(**settings_of(path, **label)))
    assert known == ((3, 4, 4), 12, 0, 3)


def test_threads_and_chunks_and_the_order_of_reading_do_not_matter(stored, tmp_path, monkeypatch):
    path, label, _ = stored
    for threads, chunk, held in ((1, 256, 2**28), (5, 2, 2**28), (3, 3, 1)):
        monkeypatch.setattr(sources, "CHUNK", chunk)
        monkeypatch.setattr(sources, "MAX_BYTES", held)
        run(settings_of(path, resolution=3, **label), tmp_path / f"{threads}", threads)
    assert len({digest(tmp_path / f"{threads}") for threads in (1, 5, 3)}) == 1
    found = [prepared(path, tmp_path / f"{n}", max_images=n, **label) for n in (7, 12)]
    assert set(rows(found[0])) < set(rows(found[1]))
    first, second = (Images(file, "test").pixels[:] for file in found)
    assert np.array_equal(first, second)  # a smaller study is tested on the same images
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith((".", "tmp"))] == []


@pytest.mark.parametrize("other", ["test", "val", "validation", "dev"])
@pytest.mark.parametrize("form", ["{}-00000-of-00001", "all/{}/0000", "photos-{}-000"])
@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_training_shards_beside_those_of_one_split_are_tested_on_it(tmp_path, kind, form, other):
    folder = tmp_path / "shards"
    for split, seeds in (("train", range(5)), (other, range(5, 9))):
        path = folder / f"{form.format(split)}.{kind}"
        parquet(path, seeds) if kind == "parquet" else tar(path, samples(seeds))
    names = NAMES if kind == "parquet" else ["0", "1", "2"]
    out = prepared(folder, tmp_path / "d", held_out=None)
    assert rows(out, ["train"]) == wanted(range(5), names)
    assert rows(out, ["test"]) == wanted(range(5, 9), names)
    assert facts(Dataset(**settings_of(folder) | {"held_out": None})) == ((3, 4, 4), 5, 4, 3)
    assert len(Images(prepared(folder, tmp_path / "e", held_out=3), "test").pixels) == 3


DOUBTFUL = (
    ["train-0", "validation-0", "test-0"], ["train-0", "more", "test-0"],
    ["cats-train-0", "dogs-test-0"], ["validation-0", "test-0"], ["train/val-0", "test/val-0"],
)  # fmt: skip
ONE = (
    ["train-0", "train-1"], ["test-0", "test-1"], ["cats", "dogs"], ["train-0", "extra-0"],
    ["train-00000-of-00002-test", "train-00001-of-00002-val"], ["a/train-0", "b/train-0"],
)  # fmt: skip


@pytest.mark.parametrize("names", [*DOUBTFUL, *ONE])
def test_shards_of_doubtful_splits_are_refused(tmp_path, names):
    for name in names:
        tar(tmp_path / "s" / f"{name}.tar", {})
    if names in ONE:
        assert len(shards(str(tmp_path / "s"), ".tar").train) == len(names)
        return
    with pytest.raises(ValueError, match="are of several splits, by their names"):
        shards(str(tmp_path / "s"), ".tar")


def test_the_split_of_a_name():
    assert set_of("default/train/0000.parquet") == ("train", "default", "default train")
    assert set_of("imagenet-val-000012.tar") == ("test", "imagenet", "imagenet val")
    assert set_of("train-00000-of-00002-valtest.parquet") == ("train", "", "train")
    assert set_of("000.tar") == (None, "", "")


def test_without_a_test_split_held_out_is_needed(stored, tmp_path):
    path, label, _ = stored
    refused(path, "dataset.held_out: missing", held_out=None, **label)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_what_is_skipped_is_listed_and_the_rest_is_as_without_it(tmp_path, kind):
    if kind == "tar":
        torn = samples(range(9), **{"009.png": png(9)[:40], "009.cls": b"0"})
        path = tar(tmp_path / "a.tar", torn)
        name, link = "a.tar/009.png", {"010.png": "/etc/passwd", "010.cls": b"1"}
        refused(tar(tmp_path / "l.tar", torn | link), ".png' cannot be read: ")
    else:
        images = [{"bytes": png(s), "path": None} for s in range(9)]
        torn = [{"bytes": png(9)[:40], "path": "x"}, {"bytes": None, "path": "/etc/passwd"}]
        path, name = parquet(tmp_path / "a.parquet", range(10), images=images + torn[:1]), "row 9"
        absent = parquet(tmp_path / "b.parquet", range(10), images=images + torn[1:])
        refused(absent, "'b.parquet, row 9' cannot be read: its row holds no bytes")
    refused(path, f"{name}' cannot be read: ", "dataset.on_error: skip")
    out = prepared(path, tmp_path / "d", on_error="skip")
    assert len(rows(out)) == 9 and set(rows(out)) <= set(
        wanted(range(9), NAMES if kind == "parquet" else "012")
    )
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 1


TARS = {
    "no class": (samples(range(3)) | {"9.png": png(9)}, {}, ["'9.png' has no class"]),
    "no image": (samples(range(3)) | {"9.cls": b"1"}, {}, ["'9.cls', but no image"]),
    "two images": (samples(range(3)) | {"000.jpg": png(1)}, {}, ["'000.jpg' beside another"]),
    "a gap": ({"0.png": png(0), "0.cls": b"0", "1.png": png(1), "1.cls": b"2"}, {},
              ["no image of class 1"]),
    "a name and a number": ({"0.png": png(0), "0.cls": b"0", "1.png": png(1), "1.cls": b"x"}, {},
                            ["class of 'a.tar/1.png' is 'x'"]),
    **{
        f"the class {cls!r}": (
            samples(range(3)) | {f"{n:03}.cls": cls for n in range(3)}, {},
            ["a.tar/000.png' is ", "or for every image a name on one line, no number"],
        )
        for cls in (b"0\n1", b"\x1b[2J", b"1.0", b".5", b"-1.5", b"+1", b"1e3")
    },
    "no text": ({"0.png": png(0), "0.cls": b"\xff"}, {}, ["'0.cls' cannot be read"]),
    "large": ({"0.png": png(0), "0.cls": bytes(2**20 + 1)}, {}, ["'0.cls' has 1,048,577 bytes"]),
    "a link": ({"0.png": png(0), "0.cls": "x"}, {}, ["'0.cls' is a link or a device"]),
    "no such key": (samples(range(3)), {"label": "kid"}, ["000.json' cannot be read", "key 'kid'"]),
    "no .json at all": ({f"{n}.png": png(n) for n in range(3)}, {"label": "kind"},
                        ["no image has a class by 'kind'; allowed"]),
    "deep": ({"0.png": png(0), "0.json": b"[" * 10**5}, {"label": "x"}, ["'0.json' cannot be re"]),
    "a list": (samples(range(2)) | {"002.png": png(2), "002.json": b'{"kind": [1]}'},
               {"label": "kind"}, ["'a.tar/002.png' is [1]"]),
    "nothing": ({"a.txt": b""}, {}, ["no images, found 1 x .txt; allowed after the first dot"]),
    "two dots": ({"a.1.png": png(0)}, {}, ["no images, found 1 x .1.png"]),
    "above": (samples(range(3)) | {"../x.png": png(1), "../x.cls": b"1"}, {}, ["above the arch"]),
    "absolute": (samples(range(3)) | {"/x.png": png(1), "/x.cls": b"1"}, {}, ["absolute name"]),
}  # fmt: skip


@pytest.mark.parametrize("members, changes, words", TARS.values(), ids=TARS)
def test_a_mistake_in_a_tar_is_one_line(tmp_path, members, changes, words):
    path = tar(tmp_path / "a.tar", members)
    refused(path, *words, **changes)
    with pytest.raises(ValueError, match=r"dataset\.path: "):  # so the plan knows it
        facts(Dataset(**settings_of(path, **changes)))


@pytest.mark.parametrize("name", ["1a", "e3", "v1.0", "1-2", "nan", "x\N{SUPERSCRIPT TWO}", "."])
def test_a_name_with_digits_is_a_name(tmp_path, name):
    members = samples(range(9)) | {f"{n:03}.cls": name.encode() for n in range(9)}
    assert Images(prepared(tar(tmp_path / "a.tar", members), tmp_path / "d")).classes == [name]


def test_a_damaged_tar_is_never_read_as_a_shorter_one(tmp_path):
    """Python's tarfile ends without a word where no header is."""
    path = tar(tmp_path / "a.tar", samples(range(3)))
    whole = path.read_bytes()
    for at in range(0, len(whole) - 10240 + 512, 512):
        path.write_bytes(whole[:at])
        refused(path, "a.tar: not a whole .tar (")
    second = whole.index(b"001.png")
    path.write_bytes(whole[:second] + b"\xff" * 512 + whole[second + 512 :])
    refused(path, f"not a whole .tar (no member and no end at byte {second:,})")
    for more in (whole, whole[-512:] + b"x"):  # as `cat` puts two together
        path.write_bytes(whole + more)
        refused(path, "a.tar: not a whole .tar (ends at byte ", "and more comes after")
    path.write_bytes(whole + bytes(2**15))
    assert len(rows(prepared(path, tmp_path / "d", held_out=1))) == 3
    with tarfile.open(tmp_path / "b.tar", "w:gz") as file:
        file.add(tmp_path)
    refused(tmp_path / "b.tar", "b.tar: not a whole .tar", "shards are not compressed")


def test_litter_in_a_tar_is_left_out(tmp_path):
    litter = {"._000.png": b"x", "__MACOSX/a.png": b"x", "a/.b.png": b"x"}
    path = tar(tmp_path / "a.tar", litter | samples(range(4)))
    assert len(rows(prepared(path, tmp_path / "d"))) == 4


IMAGE = {"_type": "Image"}
PARQUETS = {
    "a label below": ({"classes": [0, 1, -1]}, {}, ["row 2' is -1; allowed: 0 to 2"]),
    "a label beyond": ({"classes": [0, 1, 3]}, {}, ["row 2' is 3; allowed: 0 to 2"]),
    "no label": ({"classes": [0, None, 1]}, {}, ["row 1' is None"]),
    "no label, without names": (
        {"classes": [0, None, 1], "features": None}, {}, ["row 1' is none; allowed"]),
    "a gap": ({"classes": [0, 2, 2], "features": None}, {}, ["no image of class 1"]),
    "no such column": ({}, {"label": "kind"}, ["no column 'kind'; allowed: image, label"]),
    "several classes": (
        {"features": {"a": {"_type": "ClassLabel"}, "b": {"_type": "ClassLabel"}},
         "a": [0, 1, 2], "b": [0, 1, 2]}, {}, ["found the classes a, b; allowed: dataset.label"]),
    "sound": ({"features": {"image": {"_type": "Audio"}}}, {}, ["columns image (Audio), label ("]),
    "bare bytes": ({"features": None, "image": [b"x"] * 3}, {}, ["the columns image (binary)"]),
    "twice": ({"kinds": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}, {},
              ["names of 'label' are ['a', 'a']"]),
    "a number": ({}, {"label": "size"}, ["row 0' is 0.5"]),
    "no class at all": ({"kind": arrow.nulls(3)}, {"label": "kind"},
                        ["no image has a class by 'kind'; allowed"]),
}  # fmt: skip


@pytest.mark.parametrize("more, changes, words", PARQUETS.values(), ids=PARQUETS)
def test_a_mistake_in_a_parquet_file_is_one_line(tmp_path, more, changes, words):
    if changes.get("label") == "size":
        more = {"size": [0.5, 1.5, 2.5]}
    path = parquet(tmp_path / "a.parquet", range(3), **more)
    refused(path, *words, **changes)
    with pytest.raises(ValueError, match=r"dataset\.path: "):
        facts(Dataset(**settings_of(path, **changes)))


def test_the_classes_of_a_parquet_file(tmp_path):
    """Of a ClassLabel, of whole numbers without names, of a column of texts, or none."""
    kinds = {"fine": ["x", "y", "x", "z"], "coarse": [0, 1, 0, 1]}
    path = parquet(tmp_path / "a.parquet", range(4), features=None, **kinds)
    for label, names in (
        (None, ["0", "1", "2"]),
        ("fine", ["x", "y", "z"]),
        ("coarse", ["0", "1"]),
    ):
        out = prepared(path, tmp_path / "d", label=label)
        assert Images(out).classes == names
    boxes = parquet(tmp_path / "b.parquet", range(4), None, classes=[[1], [2, 3], [], [4]])
    assert Images(prepared(boxes, tmp_path / "d")).classes is None


OTHER_LABELS = {
    "texts": (["a", "b", "a", "b"], ["'label' of string", "dataset.label: label, by which each"]),
    "coded": (arrow.array(["a", "b"] * 2).dictionary_encode(), ["of dictionary", "by which each"]),
    "truths": ([True, False] * 2, ["'label' of bool", "allowed: whole numbers or texts in it"]),
    "parts": ([0.0, 1.0] * 2, ["'label' of double", "or another name for it"]),
    "days": ([datetime.date(2020, 1, 1)] * 4, ["'label' of date32"]),
    "bytes": ([b"a", b"b"] * 2, ["'label' of binary"]),
}


@pytest.mark.parametrize("labels, words", OTHER_LABELS.values(), ids=OTHER_LABELS)
def test_a_column_of_classes_that_would_not_be_read_is_named(tmp_path, labels, words):
    """Without a word the dataset would have no classes."""
    refused(parquet(tmp_path / "a.parquet", range(4), None, classes=labels), *words)


def test_files_of_one_dataset_have_the_same_columns(tmp_path):
    parquet(tmp_path / "s" / "0.parquet", range(3))
    parquet(tmp_path / "s" / "1.parquet", range(3), kinds={"label": {"_type": "ClassLabel",
            "names": ["dog", "cat", "owl"]}})  # fmt: skip
    refused(tmp_path / "s", "1.parquet: has other columns of images or classes than the first")


def test_a_column_twice_is_refused(tmp_path):
    from pyarrow.parquet import read_table, write_table

    table = read_table(parquet(tmp_path / "a.parquet", range(3)))
    for index in range(2):
        twice = table.append_column(table.schema[index], table.column(index))
        write_table(twice, tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", f"a column '{table.column_names[index]}' twice")


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    """Never fewer images: of bytes, either all are read or none."""
    path = parquet(tmp_path / "a.parquet", range(6))
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-8], b"x" * 1000):
        path.write_bytes(content)
        refused(path, "a.parquet: not a readable Parquet file (")
    place = 20  # within the first page
    path.write_bytes(whole[:place] + b"\xff" * 200 + whole[place + 200 :])
    refused(path, "a.parquet")


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    path = parquet(tmp_path / "a.parquet", range(6))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused(path, "pyarrow is not installed", "ect-pipeline[parquet]")


def test_a_file_of_another_kind_is_known_by_the_config(tmp_path):
    for source, name in (("images", "a.tar"), ("images", "a.parquet"), ("parquet", "a.tar")):
        with pytest.raises(ValueError, match=r"or source: (webdataset|parquet)"):
            Dataset(**BASE | {"source": source, "path": name})
    with pytest.raises(ValueError, match="label is set for 'images'"):
        Dataset(**BASE | {"source": "images", "path": "a", "label": "x"})


def test_the_fingerprint_is_of_the_shards(tmp_path):
    parquet(tmp_path / "s" / "a.parquet", range(3))
    first = fingerprint(tmp_path / "s", ".parquet")
    (tmp_path / "s" / "notes.txt").write_text("x")
    assert fingerprint(tmp_path / "s", ".parquet") == first
    parquet(tmp_path / "s" / "a.parquet", range(4))
    assert fingerprint(tmp_path / "s", ".parquet") != first


@pytest.mark.parametrize("numbers, total", [((0,), 3), ((0, 2), 3), ((0, 1, 2), 2)])
def test_shards_that_their_names_miss_are_told(tmp_path, numbers, total):
    """One of them alone may be the path: someone wants no more."""
    for number in numbers:
        tar(tmp_path / "all" / f"train-{number:05}-of-{total:05}.tar", samples([number]))
    words = f"found {len(numbers)} of the {total} files 'train-...-of-{total}'"
    with pytest.raises(ValueError, match=words):
        shards(str(tmp_path / "all"), ".tar")
    one = next((tmp_path / "all").iterdir())
    assert list(shards(str(one), ".tar").train) == [one.name]
