"""Starts in our own architecture: bare weights, and the model file of another study."""

import json
import os
import sys
from collections import defaultdict

import pytest
import torch
from safetensors.torch import save_file

from ect.cli import main
from ect.data import batches
from ect.models import build
from ect.models.importers import state_dict
from ect.runtime import checkpoint
from tests.helpers.checkpoints import Call

NETWORK = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
ABOUT = {"network": NETWORK, "process": "flow", "parameterization": "velocity", "c_noise": "time"}


def saved(weights, path):
    """The state dict as a file of the kind that the path's suffix says."""
    weights = {name: value.contiguous() for name, value in weights.items()}
    torch.save(weights, path) if path.suffix == ".pt" else save_file(weights, path)
    return path


def imported(path, data, out, about=ABOUT):
    """The exit code of an import by hand."""
    told = ["--about", json.dumps(about), "--data", str(data)]
    return main.main(["import-model", "state_dict", str(path), *told, "--out", str(out)])


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.model."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bare_weights_are_the_network_that_wrote_them(
    make_unet, digits_file, tmp_path, prefix, suffix
):
    network = make_unet().eval().to(memory_format=torch.channels_last)
    weights = {prefix + name: value for name, value in network.state_dict().items()}
    out = tmp_path / "model.safetensors"
    assert imported(saved(weights, tmp_path / f"weights{suffix}"), digits_file, out) == 0
    f, _, about = build.load_model(out)
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 0.4, 0.7, 0.95])
    assert torch.equal(f.network(x, 1000 * t), network(x, 1000 * t))
    c_in = ((1 - t) ** 2 * about["sd"] ** 2 + t**2).rsqrt().view(-1, 1, 1, 1)
    v = network(c_in * x, 1000 * t)
    torch.testing.assert_close(f(x, t), x - t.view(-1, 1, 1, 1) * v, rtol=1e-5, atol=1e-6)


def test_the_dataset_says_what_the_images_are(make_unet, write_digits, digits_file, tmp_path):
    path = saved(make_unet().state_dict(), tmp_path / "weights.safetensors")
    for data in (write_digits("unit"), digits_file):
        _, about = state_dict.read(path, ABOUT, data)
        images = batches.Images(data)
        found = (about["shift"], about["scale"], about["sd"])
        assert found == (images.shift, images.scale, images.sd)
        assert about["shape"] == [1, 8, 8] and about["c_in"] == "scaled"
    _, about = state_dict.read(path, ABOUT | {"sd": 0.25, "c_in": "one"}, digits_file)
    assert (about["sd"], about["c_in"]) == (0.25, "one")


def test_what_does_not_fit_is_one_line(make_unet, digits_file, tmp_path, capsys):
    weights = make_unet().state_dict()
    weights["stem.weight"] = torch.zeros(8, 3, 3, 3)
    weights["extra"] = weights.pop("head.bias")
    path = saved(weights, tmp_path / "weights.pt")
    assert imported(path, digits_file, tmp_path / "model.safetensors") == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"ect import-model: {path}: weights: found ") and "\n" not in said
    assert "missing: head.bias; unexpected: extra; " in said
    assert "stem.weight (8, 3, 3, 3) instead of (8, 1, 3, 3)" in said


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.uint8, torch.bool, torch.int64, torch.complex64]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_are_no_floating_point_numbers_are_refused(
    make_unet, digits_file, tmp_path, capsys, kind, suffix
):
    """Codes of a quantised network are not its weights."""
    weights = make_unet().state_dict()
    weights["stem.weight"] = (100 * weights["stem.weight"]).to(kind)
    path = saved(weights, tmp_path / f"weights{suffix}")
    assert imported(path, digits_file, tmp_path / "model.safetensors") == 1
    said = capsys.readouterr().err.strip()
    assert f"{path}: weights: found stem.weight of {kind}; allowed: torch.float16" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        (torch.Tensor.to_sparse, "torch.sparse_coo, on cpu"),
        (lambda x: x.to("meta"), "torch.strided, on meta"),
        (lambda x: torch.nested.nested_tensor([x, x[:1]], layout=torch.strided), "nested, on cpu"),
    ],
    ids=["sparse", "meta", "nested"],
)
def test_weights_without_their_numbers_are_refused_in_one_line(
    make_unet, digits_file, tmp_path, capsys, change, words
):
    weights = make_unet().state_dict()
    weights["stem.weight"] = change(weights["stem.weight"])
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    assert imported(path, digits_file, tmp_path / "model.safetensors") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: stem.weight: found a tensor that is {words}; allowed: a dense one" in line


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda weights: {k: v.numpy() for k, v in weights.items()}, "numpy._core.multiarray._rec"),
        (lambda weights: defaultdict(int, weights), "collections.defaultdict;"),
        (lambda weights: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear;"),
    ],
    ids=["numpy", "mapping", "module"],
)
def test_other_objects_than_tensors_are_named(
    make_unet, digits_file, tmp_path, capsys, change, words
):
    path = tmp_path / "weights.pt"
    torch.save(change(make_unet().state_dict()), path)
    assert imported(path, digits_file, tmp_path / "model.safetensors") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: content: found an object of {words}" in line and "tensors alone" in line


def test_tied_weights_are_imported_as_two(make_unet, digits_file, tmp_path):
    weights = make_unet().state_dict()
    twin = next(n for n in weights if n.endswith("norm1.bias"))
    other = next(n for n in weights if n.endswith("norm1.weight"))
    weights[twin] = weights[other]
    path, out = tmp_path / "weights.pt", tmp_path / "model.safetensors"
    torch.save(weights, path)
    assert imported(path, digits_file, out) == 0
    found = checkpoint.load(out)[0]
    assert torch.equal(found[twin], found[other])


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({"c_inn": "one"}, "c_inn: found an unknown key; allowed: network, process"),
        ({"sigma": 0.5}, "sigma: found an unknown key"),
        ({"shape": [1, 8, 8]}, "shape: found an unknown key"),
        ({"network": NETWORK | {"heads": 4}}, "network.heads: found an unknown key"),
        ({"c_noise": ...}, "c_noise: found nothing; allowed: a name"),
        ({"network": ...}, "network: found nothing; allowed: a mapping"),
        ({"process": 3}, "process: found 3"),
        ({"sd": None}, "sd: found None"),
        ({"sd": -0.5}, "sd: found -0.5"),
    ],
)
def test_the_meaning_has_known_keys(make_unet, digits_file, tmp_path, capsys, changes, wanted):
    path = saved(make_unet().state_dict(), tmp_path / "weights.pt")
    told = {key: value for key, value in (ABOUT | changes).items() if value is not ...}
    assert imported(path, digits_file, tmp_path / "model.safetensors", told) == 1
    said = capsys.readouterr().err.strip()
    assert f"--about: {wanted}" in said and len(said.splitlines()) == 1


def test_many_that_do_not_fit_are_counted(make_unet, digits_file, tmp_path):
    weights = {f"net.{name}": value for name, value in make_unet().state_dict().items()}
    path, more = saved(weights, tmp_path / "weights.pt"), len(weights) - 4
    with pytest.raises(ValueError, match=f"missing: .* and {more} more; unexpected: net"):
        state_dict.read(path, ABOUT, digits_file)


@pytest.mark.parametrize("content", [{}, [1], {"ema": {"a": torch.zeros(1)}, "step": 3}])
def test_other_content_is_refused(digits_file, tmp_path, content):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.pt: content: found .*; allowed: a dict of"):
        state_dict.read(path, ABOUT, digits_file)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_or_malicious_content_is_refused_unrun(digits_file, tmp_path, name):
    ran, path = tmp_path / "ran", tmp_path / name
    torch.save(Call(os.system, f"touch {ran}"), path)
    for kept in (1.0, 0.5, 0.0):
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(ValueError, match=r"content: found .*; allowed: a state") as refusal:
            state_dict.read(path, ABOUT, digits_file)
        assert "\n" not in str(refusal.value) and not ran.exists()


def test_meaning_and_data_belong_to_a_state_dict_alone(tmp_path, capsys):
    words = ["import-model", "edm", "a.pkl", "--about", "{}", "--out", str(tmp_path / "m")]
    assert main.main(words) == 1
    assert "edm: found 1 of --about and --data" in capsys.readouterr().err
    assert main.main(["import-model", "state_dict", "a.pt", "--out", str(tmp_path / "m")]) == 1
    assert "state_dict: found 0 of --about and --data" in capsys.readouterr().err


@pytest.fixture
def model(make_unet, digits_file, tmp_path):
    """A model.safetensors."""
    path = saved(make_unet().state_dict(), tmp_path / "weights.pt")
    assert imported(path, digits_file, tmp_path / "model.safetensors") == 0
    return tmp_path / "model.safetensors"


def again(path, out):
    return main.main(["import-model", "ect", str(path), "--out", str(out)])


def test_a_model_file_is_imported_to_the_byte(model, tmp_path):
    assert again(model, tmp_path / "again.safetensors") == 0
    assert (tmp_path / "again.safetensors").read_bytes() == model.read_bytes()


def test_an_older_model_file_is_edms_in_time_label_and_input(model, tmp_path):
    weights, about = checkpoint.load(model)
    older = {key: value for key, value in about.items() if key not in ("c_noise", "c_in")}
    checkpoint.save(tmp_path / "older", weights, **older)
    assert again(tmp_path / "older", tmp_path / "new") == 0
    wanted = about | {"c_noise": "log_s", "c_in": "scaled"}
    assert checkpoint.load(tmp_path / "new")[1] == wanted


@pytest.mark.parametrize("kind", ["state", "snapshots", "torn", "foreign", "absent"])
def test_another_file_of_ours_is_no_model(model, tmp_path, capsys, kind):
    weights, about = checkpoint.load(model)
    path, out = tmp_path / kind, tmp_path / "out.safetensors"
    if kind == "state":
        checkpoint.save(path, checkpoint.prefixed("network", weights), seen=3)
    if kind == "snapshots":
        checkpoint.save(path, checkpoint.prefixed("1000", weights), **about)
    if kind == "torn":
        path.write_bytes(model.read_bytes()[:-5])
    if kind == "foreign":
        save_file(weights, path)
    assert again(path, out) == 1 and not out.exists()
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"ect import-model: {path}: ") and "\n" not in said


def test_without_diffusers_one_line_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    words = ["import-model", "diffusers", str(tmp_path / "pipe"), "--out", str(tmp_path / "m")]
    (tmp_path / "pipe").mkdir()
    assert main.main(words) == 1
    said = capsys.readouterr().err.strip()
    assert "no such package" in said and "extra 'diffusers'" in said and "\n" not in said
