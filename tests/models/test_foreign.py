"""A foreign file of the wrong kind is named for what it is, with the format that reads it."""

import gzip
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ect import sampler
from ect.cli import main
from ect.data.batches import Images
from ect.models import build, draw
from ect.models.importers import edm, foreign
from ect.models.load import Model
from ect.registry import FORMATS
from ect.runtime import checkpoint
from ect.training import parts
from tests.helpers.checkpoints import Persistent, unet

ESC = b"\x1b[2J\x1b]0;owned\x07"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 223\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Access\n denied</title></head></html>"
BYTES = {  # name: (content, what the line says of it)
    "empty": (b"", "an empty file"),
    "zeros": (bytes(4096), "zeros alone"),
    "lfs": (LFS, "a pointer of Git LFS, not the file itself; allowed"),
    "page": (PAGE, "a web page that begins 'Access\\n denied'"),
    "xml": (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "a web page that begins"),
    "gz": (gzip.compress(b"x" * 99), "a compressed archive"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), "a compressed archive"),
    "tar": (b"a" * 257 + b"ustar" + bytes(99), "a compressed archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "a file of HDF5"),
    "gguf": (b"GGUF" + bytes(9) + b"x", "a file of GGUF"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(9), "a picture"),
    "json": (b'{"_class_name": "UNet2DModel"}', "a file of JSON that begins"),
    "text": (b"404: Not Found\n", "text that begins '404: Not Found'"),
    "terminal": (
        b"Not " + ESC.replace(b"\x07", b"") + b"Found\n",
        "text that begins 'Not \\x1b[2J",
    ),
    "edm2": (pickle.dumps({"module_src": "def mp_silu(x): pass"}), "a pickle of EDM2 or of ECT's"),
    "stylegan": (pickle.dumps({"G": 1, "G_ema": 2}), "a pickle of StyleGAN"),
}


def made(name, folder):
    """A file of a kind that its library writes: (path, what the line says of it)."""
    path = folder / f"file.{name}"
    tensors = {"a": torch.zeros(3)}
    if name == "torch":
        torch.save(tensors, path)
        return path, "a file of torch.save"
    if name == "torch_old":
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        return path, "a file of torch.save"
    if name == "script":
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
        return path, "a program of TorchScript"
    if name == "npy":
        np.save(folder / "a.npy", np.zeros(3))
        return folder / "a.npy", "arrays of numpy"
    if name == "npz":
        np.savez(folder / "a.npz", a=np.zeros(3))
        return folder / "a.npz", "arrays of numpy"
    if name == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("images/1.png", b"x")
        return path, "a zip archive"
    if name == "safetensors":
        save_file(tensors, path)
        return path, "weights as safetensors"
    if name == "model":
        checkpoint.save(path, tensors, network={})
        return path, "a model.safetensors of this pipeline"
    if name == "folder":
        path.mkdir()
        return path, "a folder"
    path.write_bytes(BYTES[name][0])
    return path, BYTES[name][1]


WRITTEN = ("torch", "torch_old", "script", "npy", "npz", "zip", "safetensors", "model", "folder")
RIGHT = {"torch": "torch", "torch_old": "torch", "safetensors": "safetensors", "model": "model"}
WORDS = {
    "torch": "`state_dict`",
    "safetensors": "`state_dict`",
    "model": "`ect`",
    "lfs": "lfs pull",
}


@pytest.fixture
def extra(digits_file):
    """The further words of an import of bare weights."""
    return {"state_dict": ["--about", "{}", "--data", str(digits_file)]}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [*BYTES, *WRITTEN])
def test_a_file_is_named_for_what_it_is(name, format, extra, tmp_path, capsys):
    path, said = made(name, tmp_path)
    if RIGHT.get(name, name) in foreign.READS[format][0]:
        return
    out = tmp_path / "out.safetensors"
    words = ["import-model", format, str(path), *extra.get(format, []), "--out", str(out)]
    assert main.main(words) == 1 and not out.exists()
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"ect import-model: {path}: content: found {said}"), line
    assert f"allowed: {foreign.READS[format][1]}" in line and WORDS.get(name, "") in line
    assert len(line.splitlines()) == 1 and line.isprintable()


def test_every_format_says_what_it_reads():
    assert set(foreign.READS) == set(FORMATS)
    for kinds, _ in foreign.READS.values():
        assert set(kinds) <= set(foreign.KINDS)


@pytest.mark.parametrize("start", [b"\x80\x04\x95", b"PK\x03\x04", b"\x07\x08", bytes(8) + b"{"])
@pytest.mark.parametrize("format", ["edm", "ect", "state_dict"])
def test_what_cannot_be_told_is_still_one_line(start, format, extra, tmp_path, capsys):
    path = tmp_path / "x"
    path.write_bytes(start + b"\xff\xfe" * 20)
    words = ["import-model", format, str(path), *extra.get(format, [])]
    assert main.main([*words, "--out", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1 and line.isprintable()


def network(**changes):
    torch.manual_seed(0)
    return Persistent("EDMPrecond", {"model": unet("ddpmpp", 8, 3, 0)}, sigma_data=0.5, **changes)


EDM2 = Persistent("Precond", {"unet": Persistent("Net")}, sigma_data=0.5)
PICKLES = {
    "bare": (network, "found a bare network of class 'EDMPrecond'; allowed: a dict with a network"),
    "no ema": (lambda: {"net": network()}, "found a dict with 'net'; allowed: a dict with"),
    "edm2": (lambda: {"ema": EDM2}, "network: found 'Net'; allowed: 'UNet'"),
    "terminal": (lambda: {ESC.decode(): 1}, "found a dict with '\\x1b[2J"),
    "class": (lambda: {"ema": Persistent(ESC.decode())}, "class at 'ema': found '\\x1b[2J"),
}


@pytest.mark.parametrize(("content", "said"), PICKLES.values(), ids=PICKLES)
def test_a_pickle_of_another_content_is_named(written, tmp_path, capsys, content, said):
    path = written(content())
    assert main.main(["import-model", "edm", str(path), "--out", str(tmp_path / "m")]) == 1
    line = capsys.readouterr().err.strip()
    assert said in line and len(line.splitlines()) == 1 and line.isprintable(), line


def test_terminal_codes_in_a_name_are_escaped(digits_file, tmp_path, capsys):
    path = tmp_path / "w.pt"
    torch.save({ESC.decode() + "a": torch.zeros(1)}, path)
    about = {"network": {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}}
    about |= {"process": "ve", "parameterization": "edm", "c_noise": "log_s"}
    for content in (torch.zeros(99999), 3):
        torch.save({ESC.decode() + "a": content}, path)
        words = ["import-model", "state_dict", str(path), "--about", json.dumps(about)]
        assert main.main([*words, "--data", str(digits_file), "--out", str(tmp_path / "m")]) == 1
        line = capsys.readouterr().err.strip()
        assert "x1b[2J" in line and line.isprintable() and len(line.splitlines()) == 1


def edm_file(wrapper, **attributes):
    torch.manual_seed(0)
    return Persistent(wrapper, {"model": unet("ddpmpp", 8, 1, 0)}, **attributes)


@pytest.mark.parametrize(
    ("attributes", "lowest"), [({}, 0.02), ({"sigma_min": 0.05}, 0.05), ({"sigma_min": 0}, 0.002)]
)
def test_a_start_of_ve_says_where_its_solvers_end(written, attributes, lowest):
    weights, about = edm.read(written({"ema": edm_file("VEPrecond", **attributes)}))
    assert about["s_min"] == lowest
    model = Model(*build.from_description(weights, about))
    settings = {"options": {"steps": 3}, "images": 2, "batch": 2, "seed": 0}
    eps = sampler.noise(range(2), 1, about["shape"])
    for kind in ("euler", "heun", "dpm_solver"):
        drawn = draw.draw(model.f, model.process, about, settings | {"kind": kind})
        with torch.no_grad():
            x = sampler.SAMPLERS[kind](model.f, model.process, eps, steps=3, s_min=lowest)
        assert np.array_equal(drawn, draw.decode(x, about))
    assert draw.lowest("multistep", about) == draw.lowest("own", about) == {}


def test_other_starts_and_given_options_are_as_before(written):
    about = edm.read(written({"ema": edm_file("EDMPrecond", sigma_data=0.5)}))[1]
    assert "s_min" not in about and draw.lowest("heun", about) == {}


def test_a_model_tuned_from_it_says_so_too(written, write_digits, tmp_path):
    weights, about = edm.read(written({"ema": edm_file("VEPrecond")}))
    checkpoint.save(tmp_path / "m.safetensors", weights, **about)
    images = Images(write_digits("unit"))
    settings = parts.settings_with_start({}, tmp_path / "m.safetensors", images)
    assert settings["s_min"] == 0.02 and build.description(settings, images) == about
