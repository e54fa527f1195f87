"""Your own datasets: a folder and its .zip give the same images, and what is wrong is named."""

import errno
import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from ect.data import folder, sources
from ect.data.batches import Images, encode
from ect.data.folder import fingerprint, is_image, walk
from ect.data.prepare import run
from ect.evaluation import classifier, features
from ect.runtime.record import digest
from tests.helpers.pictures import BASE, draw, prepared, rows

CLASSES = ("café", "кот", "犬")


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 images of 8x8, in three classes, beside other files of a real disk."""
    root = tmp_path / "photos"
    for index in range(12):
        suffix = (".png", ".PNG", ".bmp", ".webp")[index % 4]
        draw(root / CLASSES[index % 3] / "deep" / f"{index:02}{suffix}", index)
    for litter in (".DS_Store", "__MACOSX/a.png", ".hidden/b.png", "café/.c.png", "café/._00.png"):
        (root / litter).parent.mkdir(exist_ok=True)
        (root / litter).write_bytes(b"no image")
    (root / "notes.txt").write_text("about the cat")
    (root / "кот" / "old.zip").write_bytes(b"PK")
    return root


def zipped(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as file:
        for found in sorted(folder.rglob("*"), reverse=True):
            file.write(found, prefix + str(found.relative_to(folder)))
    return path


def test_every_image_is_there_once_with_its_class(photos, tmp_path):
    found = rows(prepared(photos, tmp_path / "d", classes="folders"))
    files = [p for p in photos.glob("[!._]*/deep/*")]
    wanted = [(np.asarray(Image.open(p).convert("RGB")).tobytes(), p.parts[-3]) for p in files]
    assert found == sorted(wanted, key=repr) and len(found) == 12
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["classes"] == sorted(CLASSES) and record["images"] == {"train": 9, "test": 3}
    assert record["ignored"] == {".txt": 1, ".zip": 1} and record["skipped"] == []


@pytest.mark.parametrize("classes", [None, "folders"])
def test_a_folder_its_zip_and_a_folder_around_it_are_one_dataset(photos, tmp_path, classes):
    around = zipped(photos, tmp_path / "around.zip", "my photos/")
    paths = [photos, zipped(photos, tmp_path / "photos.zip"), around]
    files = [prepared(path, tmp_path / f"{k}", classes=classes) for k, path in enumerate(paths)]
    assert digest(files[0]) == digest(files[1]) == digest(files[2])
    record = json.loads((tmp_path / "run.json").read_text())
    assert list(record["inputs"]) == [str(around)]


def test_threads_and_chunks_do_not_matter(photos, tmp_path, monkeypatch):
    settings = BASE | {"path": str(photos), "resolution": 5}
    for threads, chunk in ((1, 256), (5, 256), (3, 2)):
        monkeypatch.setattr(sources, "CHUNK", chunk)
        run(settings, tmp_path / f"{threads}", threads)
    assert digest(tmp_path / "1") == digest(tmp_path / "5") == digest(tmp_path / "3")


def test_links_are_followed_but_not_in_circles(photos, tmp_path):
    (photos / "кот" / "again").symlink_to(photos)
    (photos / "犬" / "cats").symlink_to(photos / "кот")
    more = tmp_path / "elsewhere"
    draw(more / "x.png", 99)
    (photos / "café" / "linked").symlink_to(more)
    names = [name for name, _ in walk(photos) if is_image(name)]
    assert "café/linked/x.png" in names and "犬/cats/deep/01.PNG" in names
    assert not any("again/café" in name for name in names)


def test_a_subset_and_its_tests_are_random_and_the_seeds(photos, tmp_path):
    whole = rows(prepared(photos, tmp_path / "whole"))
    parts = [prepared(photos, tmp_path / f"{s}", max_images=7, split_seed=s) for s in (0, 1)]
    for part in parts:
        assert len(Images(part).pixels) == 4 and len(Images(part, "test").pixels) == 3
        assert set(rows(part)) < set(whole)
    assert rows(parts[0]) != rows(parts[1])
    tests = [Images(p, "test").pixels[:] for p in (tmp_path / "whole", tmp_path / "0")]
    assert np.array_equal(*tests)  # a smaller study is tested on the same images


def edm_labels(photos, labels=...):
    images = sorted(str(p.relative_to(photos)) for p in photos.glob("[!._]*/deep/*"))
    pairs = [[name, k % 5] for k, name in enumerate(images)]
    text = json.dumps({"labels": pairs if labels is ... else labels})
    (photos / "dataset.json").write_text(text)
    return pairs


def test_labels_of_dataset_json_are_used(photos, tmp_path):
    pairs = edm_labels(photos)
    found = rows(prepared(photos, tmp_path / "d"))
    wanted = [
        (np.asarray(Image.open(photos / name).convert("RGB")).tobytes(), str(k))
        for name, k in pairs
    ]
    assert found == sorted(wanted, key=repr)
    assert rows(prepared(zipped(photos, tmp_path / "z.zip"), tmp_path / "e")) == found
    edm_labels(photos, None)
    assert Images(prepared(photos, tmp_path / "f")).classes is None


def stray(photos):
    draw(photos / "stray.png", 0)


def other_case(photos):
    draw(photos / "КОТ" / "x.png", 0)


def other_encoding(photos):
    draw(photos / "cafe\u0301" / "x.png", 0)


def torn(photos):
    path = photos / "кот" / "deep" / "01.PNG"
    path.write_bytes(path.read_bytes()[:60])


def text_as_image(photos):
    (photos / "кот" / "x.jpg").write_text("not an image")


def eps_as_image(photos):
    (photos / "кот" / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")


def link_to_nothing(photos):
    (photos / "кот" / "gone.png").symlink_to("nowhere.png")


def large(photos):
    draw(photos / "кот" / "large.png", 0, (9, 9))


def oblong(photos):
    for path in photos.rglob("deep/*"):
        path.unlink()
    for index in range(9):
        draw(photos / "кот" / f"{index}.png", index, (8, 6))


def empty(photos):
    for path in photos.rglob("deep/*"):
        path.unlink()


def splits(photos):
    for index, name in enumerate(CLASSES):
        (photos / name).rename(photos / ("train", "test", "val")[index])


def labels_of(labels):
    return lambda photos: edm_labels(photos, labels)


NAMED = {"classes": "folders"}
MISTAKES = {
    "outside of classes": (stray, NAMED, ["'stray.png' is not in a class folder"]),
    "case": (other_case, NAMED, ["'КОТ'", "'кот'", "differ in case, encoding"]),
    "encoding": (other_encoding, NAMED, ["café", "cafe\u0301", "differ in case, encoding"]),
    "splits": (splits, NAMED, ["test, train, val are splits, not classes"]),
    "torn": (torn, {}, ["01.PNG' cannot be read: ", "dataset.on_error: skip"]),
    "eps": (eps_as_image, {}, ["'кот/x.png' cannot be read: its content is EPS; allowed: AVIF"]),
    "text": (text_as_image, {}, ["'кот/x.jpg' cannot be read: not an image"]),
    "link": (link_to_nothing, {}, ["'кот/gone.png' cannot be read: ", "No such file"]),
    "size": (large, {}, ["large.png'", "9x9 pixels", "8x8", "dataset.resolution"]),
    "oblong": (oblong, {}, [".png' has 8x6 pixels;", "dataset.resolution"]),
    "empty": (empty, {}, ["no images, found 1 x .txt, 1 x .zip; allowed: .avif"]),
    "held out": (lambda photos: None, {"held_out": 12}, ["held_out is 12; allowed: < 12"]),
    "label missing": (labels_of([["a.png", 1]]), {}, ["the class of 'café/deep/00.png'", "None"]),
    "labels torn": (labels_of(3), {}, ["dataset.json is not", "labels"]),
    "labels below": (
        lambda photos: (photos / "кот" / "dataset.json").write_text("{}"),
        {"classes": None},
        ["found 'кот/dataset.json'", "at the top"],
    ),
    "no such image": (
        lambda photos: edm_labels(photos, [*edm_labels(photos), ["lost.png", 0]]),
        {},
        ["dataset.json names 'lost.png'", "no such image"],
    ),
}


@pytest.mark.parametrize("spoil, settings, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_names_it(photos, tmp_path, spoil, settings, words):
    spoil(photos)
    paths = [photos]
    if spoil is not link_to_nothing:  # a .zip holds no links
        paths.append(zipped(photos, tmp_path / "photos.zip"))
    for path in paths:
        with pytest.raises(ValueError) as caught:
            prepared(path, tmp_path / "d", **settings)
        message = str(caught.value)
        assert all(word in message for word in words) and message.count("allowed") < 2, message
        assert len(message.splitlines()) == 1 and not (tmp_path / "d").exists()


@pytest.mark.parametrize("seed", range(13))
def test_another_size_is_found_in_either_split(photos, tmp_path, seed):
    large(photos)
    for held_out in (1, 12):
        with pytest.raises(ValueError, match=r"9x9.*dataset\.resolution"):
            prepared(photos, tmp_path / "d", held_out=held_out, split_seed=seed)


def test_what_is_skipped_is_listed_and_the_rest_is_as_without_it(photos, tmp_path):
    torn(photos)
    text_as_image(photos)
    out = prepared(photos, tmp_path / "d", on_error="skip", classes="folders")
    listed = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(line.split(": ")[0] for line in listed) == ["кот/deep/01.PNG", "кот/x.jpg"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert [f"{name}: {reason}" for name, reason in record["skipped"]] == listed
    assert sum(record["images"].values()) == len(rows(out)) == 11
    (photos / "кот" / "x.jpg").unlink()
    (photos / "кот" / "deep" / "01.PNG").unlink()
    assert rows(prepared(photos, tmp_path / "e", on_error="skip", classes="folders")) == rows(out)
    assert not (tmp_path / "skipped.txt").exists()


@pytest.mark.parametrize("bits", [1, 4, 12])
def test_images_that_would_be_black_are_refused(tmp_path, bits):
    (tmp_path / "photos").mkdir()
    kind = np.uint8 if bits <= 8 else np.uint16
    for seed in range(6):
        values = np.random.default_rng(seed).integers(0, 2**bits, (8, 8)).astype(kind)
        Image.fromarray(values).save(tmp_path / "photos" / f"{seed}.png")
    with pytest.raises(
        ValueError, match=r"/photos: the brightest pixel of all images is 1?[15]; allowed: 16"
    ):
        prepared(tmp_path / "photos", tmp_path / "d", classes=None, held_out=2)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("bits, told", [(13, True), (14, True), (15, True), (16, False)])
def test_images_that_would_be_dim_are_told(tmp_path, bits, told, capsys):
    """Values of 14 bits in files of 16 become 0 to 63."""
    (tmp_path / "photos").mkdir()
    for seed in range(6):
        values = np.random.default_rng(seed).integers(0, 2**bits, (8, 8)).astype(np.uint16)
        values[0, 0] = 2**bits - 1
        Image.fromarray(values).save(tmp_path / "photos" / f"{seed}.png")
    prepared(tmp_path / "photos", tmp_path / "d", classes=None, held_out=2)
    line = f"the brightest pixel of all images is {2 ** (bits - 8) - 1} of 255"
    assert (line in capsys.readouterr().err) == told


def test_test_images_that_are_training_images_too_are_told(tmp_path, capsys):
    """Also where two files of other names or formats hold the same pixels."""
    for index in range(24):
        draw(tmp_path / "twice" / f"{index}.{('png', 'bmp')[index // 12]}", index % 12)
        draw(tmp_path / "once" / f"{index}.png", index)
    prepared(tmp_path / "once", tmp_path / "o" / "d", held_out=8)
    assert "among the training images" not in capsys.readouterr().err
    assert "test_images_in_training" not in json.loads((tmp_path / "o" / "run.json").read_text())
    prepared(tmp_path / "twice", tmp_path / "t" / "d", held_out=8)
    train, test = (Images(tmp_path / "t" / "d", split).pixels[:] for split in ("train", "test"))
    both = [any(np.array_equal(image, other) for other in train) for image in test]
    named = json.loads((tmp_path / "t" / "run.json").read_text())["test_images_in_training"]
    assert len(named) == sum(both) > 0
    said = capsys.readouterr().err
    assert f"prepare: {sum(both)} of the test images are among the training images too" in said
    assert f"the first is {named[0]};" in said


def test_images_of_one_value_are_refused_by_their_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for index in range(6):
        Image.new("L", (8, 8), 200).save(tmp_path / "photos" / f"{index}.png")
    with pytest.raises(ValueError, match=r"/photos: all pixels of .* have the same value; allowed"):
        prepared(tmp_path / "photos", tmp_path / "d", classes=None, held_out=2)


def test_images_of_which_none_can_be_read(photos, tmp_path):
    for path in photos.rglob("deep/*"):
        path.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"/photos: 0 of .* train images could be read; allowed: 2"
    ):
        prepared(photos, tmp_path / "d", on_error="skip")


def test_one_image_to_train_with_is_too_few(tmp_path):
    settings = {"source": "digits", "normalize": "unit", "split_seed": 0}
    for counts in ({"max_images": 3, "held_out": 2}, {"held_out": 1796}):
        with pytest.raises(
            ValueError, match="max_images leave 1 of them to train with; allowed: 2"
        ):
            run(settings | counts, tmp_path / "d")
    run(settings | {"max_images": 4, "held_out": 2}, tmp_path / "d")


def test_one_test_image_that_is_left_is_too_few(tmp_path):
    """A covariance needs two; whoever asks for one has it."""
    (tmp_path / "photos").mkdir()
    for k in range(8):
        Image.new("L", (8, 8), 30 * k).save(tmp_path / "photos" / f"{k}.png")
    whole = {"classes": None, "on_error": "skip"}
    prepared(tmp_path / "photos", tmp_path / "one", held_out=1, **whole)
    order = np.random.default_rng(0).permutation(8)
    (tmp_path / "photos" / f"{order[0]}.png").write_text("torn")
    with pytest.raises(ValueError, match="1 of 2 test images could be read; allowed: 2 at least"):
        prepared(tmp_path / "photos", tmp_path / "two", held_out=2, **whole)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "Input/output error")])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_what_the_machine_cannot_read_is_not_skipped(
    photos, tmp_path, monkeypatch, error, on_error
):
    """Else the dataset would depend on free memory."""

    def fails(self, name):
        if name.endswith("01.PNG"):
            raise error
        return open(photos / name, "rb")

    monkeypatch.setattr(folder.Folder, "open", fails)
    with pytest.raises(OSError, match=r"deep/01\.PNG' could not be read by this machine") as caught:
        prepared(photos, tmp_path / "d", on_error=on_error)
    said = str(caught.value)
    assert len(said.splitlines()) == 1 and (str(error) or "MemoryError") in said
    assert not (tmp_path / "d").exists() and not (tmp_path / "skipped.txt").exists()


def test_no_permission_is_no_damage(photos, tmp_path, monkeypatch):
    def fails(self, name):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr(folder.Folder, "open", fails)
    with pytest.raises(OSError, match=r"could not be read by this machine.*Permission denied"):
        prepared(photos, tmp_path / "d", on_error="skip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_large_member_of_a_zip_is_not_unpacked(photos, tmp_path, method):
    """Nor more of a member than it says it holds; an archive in an archive is not opened."""
    path = zipped(photos, tmp_path / "photos.zip")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w") as inner, inner.open("x.png", "w") as file:
        file.write(bytes(1000))
    with zipfile.ZipFile(path, "a", method) as file:
        file.writestr("cat/bomb.png", bytes(2**24))
        file.writestr("cat/inner.zip", bomb.getvalue())
    whole = path.read_bytes()
    place = whole.rindex(b"cat/bomb.png") - 22  # of its size, in the directory
    for said, words in ((2**31, "holds 2,147,483,648 bytes; allowed: up to"), (99, "CRC")):
        path.write_bytes(whole[:place] + struct.pack("<I", said) + whole[place + 4 :])
        with pytest.raises(ValueError, match=rf"'cat/bomb\.png' cannot be read: .*{words}"):
            prepared(path, tmp_path / "d")
    prepared(path, tmp_path / "d", on_error="skip")
    record = json.loads((tmp_path / "run.json").read_text())
    assert len(record["skipped"]) == 1 and sum(record["images"].values()) == 12
    assert record["ignored"][".zip"] == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"x" * 1000])
def test_a_torn_zip_is_named(tmp_path, content):
    (tmp_path / "torn.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"torn\.zip: not a readable \.zip"):
        prepared(tmp_path / "torn.zip", tmp_path / "d")


def test_a_zip_with_one_name_twice_is_refused(tmp_path):
    draw(tmp_path / "a.png", 0)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as file:
        file.write(tmp_path / "a.png", "b/a.png")
        with pytest.warns(UserWarning):
            file.write(tmp_path / "a.png", "b/a.png")
    with pytest.raises(ValueError, match=r"holds 'b/a\.png' twice"):
        prepared(tmp_path / "twice.zip", tmp_path / "d")


def test_the_fingerprint_is_that_of_the_images(photos):
    first = fingerprint(photos)
    (photos / "notes.txt").write_text("changed")
    (photos / ".DS_Store").write_bytes(b"changed")
    assert fingerprint(photos) == first
    image = photos / "кот" / "deep" / "01.PNG"
    before = image.stat()
    seen = {first}
    for change in (
        lambda: draw(photos / "кот" / "new.png", 1),
        lambda: (photos / "кот" / "new.png").unlink(),
        lambda: image.write_bytes(image.read_bytes()[::-1]),  # the same size
        lambda: image.rename(image.with_name("02.png")),
        lambda: (photos / "dataset.json").write_text("{}"),
    ):
        change()
        seen.add(fingerprint(photos))
    assert len(seen) == 5  # the second change undid the first
    image.with_name("02.png").rename(image)
    (photos / "dataset.json").unlink()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(photos) == first


def test_a_classifier_needs_classes(photos, tmp_path):
    settings = {"channels": 8, "epochs": 1, "batch": 4, "lr": 1e-3}
    out = prepared(photos, tmp_path / "d")
    with pytest.raises(ValueError, match="classes: folders, or features"):
        classifier.run(settings, out, tmp_path / "features")
    out = prepared(photos, tmp_path / "e", classes="folders")
    classifier.run(settings, out, tmp_path / "features")
    _, extract = classifier.extractor(tmp_path / "features" / "classifier.safetensors")
    assert features.of_images(extract, Images(out).pixels).shape == (9, 64)


@pytest.mark.parametrize("size, channels", [(16, 3), (32, 3), (28, 1)])
def test_the_classifier_takes_larger_images(size, channels):
    network = classifier.Plain((channels, size, size), 10, 8)
    pixels = np.zeros((2, size, size, channels), np.uint8)
    about = {"shift": 127.5, "scale": 1 / 127.5}
    assert network(encode(pixels, about)).shape == (2, 10)
