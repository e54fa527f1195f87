"""Damaged files that a distance is computed with: each is told by its name."""

import json
import shutil

import numpy as np
import pytest
import torch

from ect.cli.main import main
from ect.evaluation import classifier, features
from ect.runtime import checkpoint

SETTINGS = {"channels": 4, "epochs": 1, "batch": 99, "lr": 1e-3}
NAMES = ("classifier", "reference", "summary", "drawn")


@pytest.fixture(scope="module")
def made(digits_file, tmp_path_factory):
    """A folder with a classifier, features of training images, their summary, and drawn images."""
    folder = tmp_path_factory.mktemp("made")
    classifier.run(SETTINGS, digits_file, folder)
    rng = np.random.default_rng(0)
    np.savez(folder / "drawn.npz", rng.integers(0, 256, (20, 8, 8, 1)).astype(np.uint8))
    told("extract", {"features": {"extractor": "classifier"}}, folder, "data", data=digits_file)
    told("summarize", {"radii": True}, folder, "reference", out="summary")
    return folder


def told(verb, settings, folder, *options, out="reference", data=None):
    files = {name: f"{folder / name}.safetensors" for name in NAMES} | {"data": str(data)}
    files["samples"] = str(folder / "drawn.npz")
    options += ("classifier",) if verb != "summarize" else ()
    words = [word for name in options for word in (f"--{name}", files[name])]
    return main([verb, json.dumps(settings), *words, "--out", f"{folder / out}.{ENDING[verb]}"])


ENDING = {"extract": "safetensors", "summarize": "safetensors", "evaluate": "json"}


def to(name, value):
    return lambda tensors, about: tensors.update({name: value(tensors[name])})


def says(**changes):
    return lambda tensors, about: about.update(changes)


def lacks(name):
    return lambda tensors, about: (tensors.pop(name, None), about.pop(name, None))


def each(change):
    return lambda tensors, about: tensors.update({k: change(v) for k, v in tensors.items()})


B = "hidden.bias"
FAULTS = [  # file, change, what is said
    ("classifier", each(lambda v: v.to(torch.int8)), "of torch.int8"),
    ("classifier", to(B, lambda v: v * torch.nan), f"NaN or infinity in {B}"),
    ("classifier", to(B, lambda v: v[:1]), f"of another shape: {B}"),
    ("classifier", lacks(B), f"missing: {B}"),
    *(("classifier", says(channels=n), "channels: found ") for n in ("4", -1, 0, 10**9, None)),
    ("classifier", says(channels=8), "of another shape: "),
    ("classifier", lacks("channels"), "channels: found nothing"),
    *(("classifier", says(shape=s), "shape: found ") for s in ("188", 5, [1, 8], [1, 10**9, 8])),
    ("classifier", says(shape=[3, 8, 8]), "of another shape: "),
    *(("classifier", says(classes=n), "classes: found ") for n in ("x", -1, 10**10)),
    *(("classifier", says(network=n), "network: found ") for n in ("x", ["plain"], None)),
    ("classifier", says(network="resnet"), "missing: "),
    *(("classifier", says(scale=s), "scale: found ") for s in (0, -1.0, "x")),
    ("classifier", says(shift="x"), "shift: found 'x'"),
    *(("reference", says(shape=s), "holds features of images of ") for s in ([1, 8], 5, [], {})),
    ("reference", says(shape=[1.0, 8.0, 8.0]), "holds features of images of "),
    ("summary", lacks("mean"), "missing: mean"),
    ("summary", lacks("variance"), "missing: variance"),
    ("summary", to("mean", lambda v: v[:5].clone()), "of another shape: mean"),
    ("summary", to("mean", lambda v: v + 1), "found another mean"),
    ("summary", to("mean", lambda v: v.half()), "mean of torch.float16"),
    ("summary", to("variance", lambda v: v.repeat(3)), "of another shape: variance"),
    ("summary", to("variance", lambda v: -v), "found another variance"),
    ("summary", to("root", lambda v: v * 0), "found another root"),
    ("summary", to("root", lambda v: v[:, :1].clone()), "of another shape: root"),
    ("summary", to("root", lambda v: v.int()), "root of torch.int32"),
    ("summary", to("radii", lambda v: v[:9].clone()), "of another shape: radii"),
    ("summary", to("radii", lambda v: v * torch.nan), "NaN or infinity in radii"),
    ("summary", to("radii", lambda v: -v), "negative radii"),
]


@pytest.mark.parametrize("name, change, wanted", FAULTS)
def test_a_damaged_file_is_told_by_its_name(made, tmp_path, capsys, name, change, wanted):
    """Without the records, by which a classifier of other bytes is another network."""
    for path in made.iterdir():
        if path.suffix != ".json":
            shutil.copy(path, tmp_path)
    path = tmp_path / f"{name}.safetensors"
    tensors, about = checkpoint.load(path)
    change(tensors, about)
    checkpoint.save(path, tensors, **about)
    settings = {"features": {"extractor": "classifier", "kd_subsets": 2}, "cell": {"seed": 0}}
    settings["metrics"] = ["fd", "precision"]
    options = ("samples", "reference", "summary")[: 3 if name == "summary" else 2]
    assert told("evaluate", settings, tmp_path, *options, out="m") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: " in line and wanted in line and "allowed: " in line
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("text", ["null", "5", "[]", '"network"', "[" * 5000 + "]" * 5000])
def test_metadata_that_is_no_object_is_told_by_its_file(tmp_path, capsys, text):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"features": torch.zeros(4, 2), "root": torch.zeros(1)}, path, {"about": text})
    for words in (
        ["summarize", '{"radii": false}', "--reference", path],
        ["sample", '{"kind": "heun", "options": {"steps": 2}, "images": 1, "batch": 1, "seed": 0}',
         "--model", path],
    ):  # fmt: skip
        assert main([*map(str, words), "--out", str(tmp_path / "o")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{path} " in line and "allowed: " in line
    with pytest.raises(checkpoint.CheckpointError, match=r"x\.safetensors: not a readable"):
        features.load(path)
