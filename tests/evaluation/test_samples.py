"""Files of images: numpy's bytes, the same images back in batches of any size, PNG files."""

import errno
import hashlib
import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ect.cli.main import main
from ect.data import npz
from ect.evaluation import samples
from ect.report import grid


def pixels(count, channels=3):
    shape = (count, 6, 5, channels)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def split(images, size):
    return [images[i : i + size] for i in range(0, len(images), size)]


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_the_file_is_numpys_to_the_byte_whatever_the_batches(size, tmp_path):
    images = pixels(20)
    np.savez(tmp_path / "numpy.npz", images)
    samples.write(tmp_path / "ours.npz", 20, split(images, size))
    ours, numpys = ((tmp_path / name).read_bytes() for name in ("ours.npz", "numpy.npz"))
    assert hashlib.sha256(ours).digest() == hashlib.sha256(numpys).digest()
    back = list(npz.read(tmp_path / "ours.npz", size))
    assert [len(part) for part in back] == [len(part) for part in split(images, size)]
    assert (np.concatenate(back) == images).all()


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12))
def test_regrouped_images_are_the_same_in_batches_of_one_size(sizes, size):
    images = np.arange(sum(sizes))
    batches = np.split(images, np.cumsum(sizes)[:-1]) if sizes else []
    found = list(samples.regrouped(batches, size))
    assert [part.tolist() for part in found] == [part.tolist() for part in split(images, size)]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_hold_the_images(channels, tmp_path):
    images = pixels(4, channels)
    samples.write(tmp_path / "s.npz", 4, [images])
    samples.export(tmp_path / "s.npz", tmp_path / "png")
    names = [f"{index:06}.png" for index in range(4)]
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == names
    back = [np.asarray(Image.open(tmp_path / "png" / name)) for name in names]
    assert (np.stack(back).reshape(images.shape) == images).all()


def array(content, version=(1, 0), head=None):
    """The bytes of an .npy file, in a format of numpy's, with a header of one's own."""
    file = io.BytesIO()
    if head is None:
        np.lib.format.write_array(file, content, version, allow_pickle=True)
        return file.getvalue()
    text = head.encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + content


def made(path, **arrays):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
    return path


IMAGES = pixels(20)
READ = {
    "Fortran order": {"arr_0": array(np.asfortranarray(IMAGES))},
    "format 2.0": {"arr_0": array(IMAGES, (2, 0))},
    "format 3.0": {"arr_0": array(IMAGES, (3, 0))},
    "with labels": {"arr_1": array(np.arange(20)), "arr_0": array(IMAGES)},
    "with objects beside": {"arr_0": array(IMAGES), "names": array(np.array([{}], object))},
}


@pytest.mark.parametrize("arrays", READ.values(), ids=READ)
@pytest.mark.parametrize("size", [7, 500])
def test_a_file_made_elsewhere_gives_its_images(arrays, size, tmp_path):
    made(tmp_path / "s.npz", **arrays)
    back = list(npz.read(tmp_path / "s.npz", size))
    assert [len(part) for part in back] == [len(part) for part in split(IMAGES, size)]
    assert (np.concatenate(back) == IMAGES).all() and all(part.flags.c_contiguous for part in back)
    rows = [["a", tmp_path / "s.npz"]]
    assert (grid._samples(rows[0][1], 3) == IMAGES[:3]).all()


class Trap:
    """A pickle of it opens a file."""

    def __reduce__(self):
        return open, ("trapped", "w")


HEAD = "{'descr': '|u1', 'fortran_order': False, 'shape': (9, 8, 8, 3), }"
SHAPE = r"allowed: \(N, H, W, C\) with C of 1 or 3"
REFUSED = {
    "floats in 0..1": ({"arr_0": array(IMAGES / 255)}, "arr_0 is float64; allowed: uint8"),
    "floats in -1..1": ({"arr_0": array(IMAGES.astype("f4") / 128 - 1)}, "arr_0 is float32"),
    "float16": ({"arr_0": array(IMAGES.astype("f2"))}, "arr_0 is float16"),
    "int64": ({"arr_0": array(IMAGES.astype(int))}, "arr_0 is int64; allowed: uint8"),
    "int8": ({"arr_0": array(IMAGES.astype("i1"))}, "arr_0 is int8"),
    "bool": ({"arr_0": array(IMAGES > 9)}, "arr_0 is bool"),
    "text": ({"arr_0": array(np.array(["a"]))}, "arr_0 is str"),
    "fields": ({"arr_0": array(np.zeros(3, [("a", "u1"), ("b", "f4")]))}, "arr_0 is void"),
    "NCHW": ({"arr_0": array(IMAGES.transpose(0, 3, 1, 2))}, r"looks like \(N, C, H, W\)"),
    "no channel": ({"arr_0": array(IMAGES[..., 0])}, SHAPE),
    "RGBA": ({"arr_0": array(pixels(4, 4))}, SHAPE),
    "two channels": ({"arr_0": array(pixels(4, 2))}, SHAPE),
    "one image": ({"arr_0": array(IMAGES[0])}, SHAPE),
    "no image": ({"arr_0": array(IMAGES[:0])}, SHAPE),
    "a number": ({"arr_0": array(np.uint8(3))}, SHAPE),
    "five axes": ({"arr_0": array(IMAGES[None])}, SHAPE),
    "objects": ({"arr_0": array(np.array([Trap()], object))}, "arr_0 is object; allowed: uint8"),
    "other names": ({"x": array(IMAGES), "y": array(IMAGES)}, "holds x, y; allowed: an array"),
    "nothing": ({}, "holds nothing; allowed"),
    "a bare pickle": ({"arr_0": pickle.dumps(Trap())}, "not a readable"),
    "format 4.0": ({"arr_0": b"\x93NUMPY\4\0" + array(IMAGES)[8:]}, r"\(4, 0\); allowed: 1.0"),
    "too short": ({"arr_0": array(IMAGES)[:-1]}, "arr_0 holds 1,799 bytes; its shape"),
    "too long": ({"arr_0": array(IMAGES) + b"x"}, "arr_0 holds 1,801 bytes; its shape"),
    "header cut": ({"arr_0": array(IMAGES)[:40]}, "not a readable"),
    "header not a dict": ({"arr_0": array(b"", head="[1, 2]")}, "not a readable"),
    "header with code": ({"arr_0": array(b"", head="open('trapped', 'w')")}, "not a readable"),
    "header nested": ({"arr_0": array(b"", head="(" * 5000)}, "not a readable"),
    "header too long": ({"arr_0": array(b"", head=HEAD + " " * 20_000)}, "not a readable"),
    "negative": ({"arr_0": array(b"", head=HEAD.replace("9", "-9"))}, SHAPE),
    "a billion": ({"arr_0": array(b"", head=HEAD.replace("9", "1000000000"))}, "holds 0 bytes"),
    "a large image": ({"arr_0": array(b"", head=HEAD.replace("8, 8", "99999, 99999"))}, "allowed"),
    "names with codes": ({"\x1b[2J\n": array(IMAGES)}, r"holds \\x1b\[2J\\n; allowed"),
}  # fmt: skip


@pytest.mark.parametrize("arrays, words", REFUSED.values(), ids=REFUSED)
def test_a_file_of_something_else_is_refused_in_one_line(arrays, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = made(tmp_path / "s.npz", **arrays)
    for reads in (npz.read, lambda path: [grid._samples(path, 2)]):
        with pytest.raises(ValueError, match=words) as caught:
            list(reads(path))
        said = str(caught.value)
        assert said.startswith(f"{path}: not a readable samples.npz (")
        assert len(said.splitlines()) == 1 and len(said) < 500
    assert not (tmp_path / "trapped").exists()


def test_a_torn_archive_is_refused_at_every_length(tmp_path, capsys):
    """Cut, and with any byte changed: never other images, nor a traceback."""
    path = made(tmp_path / "s.npz", arr_0=array(IMAGES))
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 61)]
    changed = [
        whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        for at in [*range(0, len(whole) - 150, 61), *range(len(whole) - 150, len(whole))]
    ]
    for content in cut + changed:
        path.write_bytes(content)
        try:
            assert (np.concatenate(list(npz.read(path))) == IMAGES).all()
        except (ValueError, OSError) as error:
            assert str(error).startswith(f"{path}: ")
        words = ["evaluate", "{}", "--samples", str(path), "--data", str(path), "--out", "o"]
        assert main(words) == 1 and len(capsys.readouterr().err.splitlines()) == 1


def test_what_the_machine_cannot_read_is_no_damage(tmp_path, monkeypatch):
    path = made(tmp_path / "s.npz", arr_0=array(IMAGES))

    def fails(self, *words):
        raise error

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fails)
    error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match=r"s\.npz: cannot be read \(Input/output error\)"):
        list(npz.read(path))
    error = MemoryError()
    with pytest.raises(MemoryError):
        list(npz.read(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_byte_that_changed_is_found_before_images_are_shown_or_exported(save, tmp_path, capsys):
    """Its checksum is at the end of the file, behind more images than the figure has."""
    path, folder = tmp_path / "s.npz", tmp_path / "png"
    save(path, pixels(40))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.npz: not a readable samples\.npz"):
        grid._samples(path, 8)
    assert main(["export-images", str(path), str(folder)]) == 1
    assert "not a readable samples.npz" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]
