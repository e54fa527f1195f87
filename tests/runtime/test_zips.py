"""A zip that needs a password is told as one, wherever it stands for images or a network."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from ect.cli.main import main
from ect.config.config import Config, ConfigError
from ect.data import folder, npz
from ect.runtime.zips import is_locked
from tests.helpers.configs import changed


def locked(path, entries, names=None):
    """Write a zip of {name: content} whose entries, all or those of `names`, need a password."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
        found = [(i.filename, i.header_offset) for i in file.infolist()]
        start = file.start_dir
    data = bytearray(path.read_bytes())
    for name, offset in found:
        needs = names is None or name in names
        data[offset + 6] |= needs
        data[start + 8] |= needs
        start = data.find(b"PK\x01\x02", start + 4)
    path.write_bytes(data)
    return path


def pictures(count=12):
    found = {}
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        found[f"{index}.png"] = file.getvalue()
    return found


@pytest.mark.parametrize("names", [None, ["3.png"], ["dataset.json"]])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_images_in_an_encrypted_zip(tmp_path, capsys, names, on_error):
    labels = json.dumps({"labels": [[f"{index}.png", index % 2] for index in range(12)]})
    path = locked(tmp_path / "a.zip", {**pictures(), "dataset.json": labels}, names)
    settings = {"source": "images", "path": str(path), "normalize": "unit", "held_out": 2}
    settings |= {"split_seed": 0, "on_error": on_error}
    out = tmp_path / "out" / "data.safetensors"
    assert main(["prepare", json.dumps(settings), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"ect prepare: {path}: found an encrypted .zip (") and not out.exists()
    assert said.count("\n") == 1 and "; allowed: one that is not" in said


def test_what_is_no_image_may_need_a_password(tmp_path):
    path = locked(tmp_path / "a.zip", {**pictures(3), "notes.txt": b"x"}, ["notes.txt"])
    assert len(folder.images_of(folder.opened(path), path)[0]) == 3


def test_samples_in_an_encrypted_zip(tmp_path):
    np.save(file := io.BytesIO(), np.zeros((2, 8, 8, 1), np.uint8))
    path = locked(tmp_path / "s.npz", {"arr_0.npy": file.getvalue()})
    with pytest.raises(ValueError, match=r"found an encrypted zip; allowed: one without a passw"):
        list(npz.read(path))


@pytest.mark.parametrize("format", ["edm", "ect", "diffusers"])
def test_a_released_model_in_an_encrypted_zip(tmp_path, capsys, format):
    path = locked(tmp_path / "m.pkl", {"a/data.pkl": b"x"})
    out = str(tmp_path / "m.safetensors")
    assert main(["import-model", format, str(path), "--out", out]) == 1
    assert f"{path}: content: found an encrypted zip archive; all" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key, block",
    {
        "init": {"a": {"format": "edm", "file": "m.pkl"}},
        "features": {"extractor": "dinov2", "dinov2_path": "m.pkl"},
    }.items(),
)
def test_a_config_that_names_an_encrypted_zip(tmp_path, monkeypatch, key, block):
    assert is_locked(locked(tmp_path / "m.pkl", {"a/data.pkl": b"x"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"an encrypted zip.*; allowed: a "):
        Config.read(changed(key, block))
