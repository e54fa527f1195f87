"""What fails leaves no empty folder: neither a verb's output, nor a download."""

import json
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from ect.cli.main import main
from ect.data import sources
from ect.runtime.checkpoint import no_folder_left


def refuse(*_, **__):
    raise OSError("no network")


def test_only_what_was_made_and_is_empty_goes(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyError), no_folder_left(tmp_path / "there/a/b", tmp_path / "there/c/d"):
        (tmp_path / "there/a/b").mkdir(parents=True)
        (tmp_path / "there/c/d").mkdir(parents=True)
        (tmp_path / "there/c/kept").write_text("x")
        raise KeyError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c", "kept", "there"]
    with no_folder_left(tmp_path / "new"):
        (tmp_path / "new").mkdir()
    assert (tmp_path / "new").is_dir()


def test_a_download_of_inception(tmp_path, monkeypatch, capsys):
    helper = SimpleNamespace(check_download_inception=refuse, inception_url="https://x/i.pt")
    monkeypatch.setitem(sys.modules, "cleanfid", SimpleNamespace(downloads_helper=helper))
    assert main(["fetch-inception", "--out", str(tmp_path / "models/deep/i.pt")]) == 1
    assert "could not be downloaded" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_a_download_of_images(tmp_path, monkeypatch, name):
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    with pytest.raises(ValueError, match="and no download"):
        sources.SOURCES[name]({"path": str(tmp_path / "data" / "deep")})
    assert not list(tmp_path.iterdir())


def test_images_that_cannot_be_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for index in range(5):
        Image.new("L", (8, 8), index).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "3.png").write_bytes(b"x")
    settings = {"source": "images", "path": "photos", "normalize": "unit"}
    settings = json.dumps(settings | {"held_out": 2, "split_seed": 0})
    assert main(["prepare", settings, "--out", "out/deep/data.safetensors"]) == 1
    assert "'3.png' cannot be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
