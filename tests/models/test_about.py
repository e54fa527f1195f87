"""What no model can be is refused in one line, by whatever reads the file, before it is built."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import save_file

import ect
from ect.cli import main
from ect.models import about, build
from ect.registry import PROCESSES

NETWORK = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
ABOUT = {
    "network": NETWORK, "process": "ve", "parameterization": "edm", "c_noise": "log_s",
    "c_in": "scaled", "shape": [1, 8, 8], "sd": 0.5, "shift": 127.5, "scale": 1 / 127.5,
}  # fmt: skip
BETAS = {"schedule": "linear", "start": 1e-4, "end": 0.02, "steps": 1000}
CHAIN = {"process": "tabulated", "parameterization": "noise", "betas": BETAS}
UNET2D = {"architecture": "unet2d", "config": {}, "steps": 10, "classes": 0}
WIDE = {"block_out_channels": [16384], "layers_per_block": 1}
PLUGINS = {"plugins": {"own.py": "0" * 64}}
LONG = "\x1b[2J\n" + "x" * 5000
# key: (its value, or several keys' where the key is None; words of the line)
CASES = {
    "sd nan": ("sd", math.nan, "sd: found nan; allowed: a number from 1e-06"),
    "sd inf": ("sd", math.inf, "sd: found inf"),
    "sd text": ("sd", "x", "sd: found 'x'"),
    "sd zero": ("sd", 0, "sd: found 0"),
    "sd negative": ("sd", -0.5, "sd: found -0.5"),
    "sd tiny": ("sd", 1e-30, "sd: found 1e-30"),
    "sd huge": ("sd", 10**200, "sd: found 1000"),
    "sd null": ("sd", None, "sd: found None"),
    "sd true": ("sd", True, "sd: found True"),
    "sd list": ("sd", [0.5], "sd: found [0.5]"),
    "shift nan": ("shift", math.nan, "shift: found nan"),
    "shift beyond": ("shift", 256.0, "shift: found 256.0; allowed: a number from 0 to 255"),
    "shift below": ("shift", -1, "shift: found -1"),
    "shift text": ("shift", "0", "shift: found '0'"),
    "scale zero": ("scale", 0.0, "scale: found 0.0"),
    "scale negative": ("scale", -1.0, "scale: found -1.0"),
    "scale inf": ("scale", math.inf, "scale: found inf"),
    "process": ("process", "zzz", "process: found 'zzz'; allowed: ve, flow"),
    "process list": ("process", ["ve"], "process: found ['ve']"),
    "process number": ("process", 3, "process: found 3"),
    "process long": ("process", LONG, "process: found '\\x1b[2J\\nxxx"),
    "no betas": ("process", "tabulated", "process: found 'tabulated' with neither"),
    "betas of ve": ("betas", BETAS, "process: found 've' with betas"),
    "plugins of ve": (None, PLUGINS, "process: found 've' with plugins"),
    "plugins text": ("plugins", "own.py", "plugins: found 'own.py'; allowed: {file: sha256}"),
    "plugins digest": ("plugins", {"own.py": 3}, "plugins: found {'own.py': 3}"),
    "betas text": (None, CHAIN | {"betas": "linear"}, "betas: found 'linear'"),
    "betas name": (None, CHAIN | {"betas": BETAS | {"schedule": "zz"}}, "betas.schedule: found"),
    "betas end": (None, CHAIN | {"betas": BETAS | {"end": 1.5}}, "betas.end: found 1.5"),
    "betas steps": (None, CHAIN | {"betas": BETAS | {"steps": 10**9}}, "betas.steps: found"),
    "betas more": (None, CHAIN | {"betas": BETAS | {"x": 1}}, "betas.x: found an unknown key"),
    "betas less": (None, CHAIN | {"betas": {"steps": 9}}, "betas.schedule: found nothing"),
    "betas far": (None, CHAIN | {"betas": BETAS | {"end": 0.99}}, "noise levels are finite"),
    "form": ("parameterization", "v", "parameterization: found 'v'; allowed: edm, velocity"),
    "undefined": (
        None, {"process": "flow", "parameterization": "noise"},
        "parameterization: found 'noise' with process 'flow'; allowed: edm, velocity",
    ),
    "label": ("c_noise", "log", "c_noise: found 'log'; allowed: log_s"),
    "input": ("c_in", 1, "c_in: found 1; allowed: scaled, one"),
    "unknown key": ("gates", 3, "gates: found an unknown key; allowed: network"),
    "trained beyond": (
        None, {"network": NETWORK | {"classes": 3}, "trained_classes": [0, 7]},
        "trained_classes: found [0, 7] of 3 classes; allowed: some of its classes, 0 to 2",
    ),
    "trained none": (
        None, {"network": NETWORK | {"classes": 3}, "trained_classes": []},
        "trained_classes: found [] of 3 classes",
    ),
    "trained of none": ("trained_classes", [0], "trained_classes: found [0] of 0 classes"),
    "shape large": ("shape", [1, 10**6, 10**6], "shape: found [1, 1000000, 1000000]"),
    "shape two": ("shape", [8, 8], "shape: found [8, 8]; allowed: [channels, height, width]"),
    "shape zero": ("shape", [0, 8, 8], "shape: found [0, 8, 8]"),
    "shape float": ("shape", [1, 8.0, 8.0], "shape: found [1, 8.0, 8.0]"),
    "shape text": ("shape", "188", "shape: found '188'"),
    "shape oblong": ("shape", [1, 8, 4], "shape: found 8 x 4; allowed: squares"),
    "shape odd": ("shape", [1, 9, 9], "shape: found 9 x 9; allowed: squares"),
    "network text": ("network", "small", "network: found 'small'; allowed: a mapping"),
    "network null": ("network", None, "network: found None"),
    "blocks": ("network.blocks", 10**8, "network.blocks: found 100000000; allowed: a whole"),
    "blocks zero": ("network.blocks", 0, "network.blocks: found 0"),
    "blocks float": ("network.blocks", 1.0, "network.blocks: found 1.0"),
    "blocks true": ("network.blocks", True, "network.blocks: found True"),
    "more blocks": ("network.blocks", 64, "weights: found 47,985; allowed: 368,640 or more"),
    "channels": ("network.channels", 2**40, "network.channels: found 1099511627776"),
    "channels odd": ("network.channels", 9, "network.channels: found 9; allowed:"),
    "channels uneven": ("network.channels", 132, "network.channels: found 132, a layer of"),
    "channels wide": ("network.channels", 8192, "weights: found"),
    "product": (None, {"network": NETWORK | {"channels": 8192, "multipliers": [64]}},
                "network.channels: found 8192 times 64; allowed: at most 16384"),
    "multipliers none": ("network.multipliers", [], "network.multipliers: found []"),
    "multipliers text": ("network.multipliers", "12", "network.multipliers: found '12'"),
    "multipliers large": ("network.multipliers", [1, 10**9], "network.multipliers: found"),
    "multipliers many": ("network.multipliers", [1] * 99, "network.multipliers: found"),
    "attention": ("network.attention", [0], "network.attention: found [0]"),
    "architecture": ("network.architecture", "vit", "architecture: found 'vit'; allowed: ddpmpp"),
    "architecture list": ("network.architecture", [], "network.architecture: found []"),
    "embedding": ("network.embedding", "rope", "network.embedding: found 'rope'"),
    "classes": ("network.classes", -1, "network.classes: found -1"),
    "classes many": ("network.classes", 10**12, "network.classes: found"),
    "span": ("network.span", 1, "network.span: found 1; allowed: true, false"),
    "network more": ("network.gates", 2, "network.gates: found an unknown key"),
    "heads": (None, {"network": NETWORK | {"channels": 96, "architecture": "adm",
                                           "multipliers": [1, 4]}}, "weights: found"),
    "another network": ("network.attention", [], "weights: found unexpected: "),
    "diffusers steps": ("network", UNET2D | {"steps": 0}, "network.steps: found 0"),
    "diffusers config": ("network", UNET2D | {"config": 3}, "network.config: found 3"),
    "diffusers deep": ("network", UNET2D | {"config": {"a": [[[[[1]]]]]}}, "network.config: found"),
    "diffusers layers": ("network", UNET2D | {"config": {"layers_per_block": 10**8}},
                         "network.config.layers_per_block: found 100000000"),
    "diffusers channels": ("network", UNET2D | {"config": {"in_channels": 2 * 10**5}},
                           "weights: found missing"),
    "diffusers wide": ("network", UNET2D | {"config": WIDE}, "weights: found"),
}  # fmt: skip


def weights(network=NETWORK, shape=(1, 8, 8)):
    torch.manual_seed(0)
    return build.build_network(network, shape).state_dict()


def written(path, description, tensors):
    """A model file whose metadata is any text; `checkpoint.save` would write none of these."""
    save_file(tensors, path, {"about": json.dumps(description)})
    return path


def described(key, value):
    changed = copy.deepcopy(ABOUT)
    if key is None:
        return changed | copy.deepcopy(value)
    place, _, last = key.rpartition(".")
    (changed[place] if place else changed)[last] = value
    return changed


def lines(model, tmp_path, capsys):
    """What `ect.load`, an import, an export and a sampling say of a file; nothing is written."""
    with pytest.raises(ValueError) as refusal:
        ect.load(model)
    yield str(refusal.value)
    out, before = tmp_path / "out", sorted(tmp_path.iterdir())
    settings = {"kind": "multistep", "options": {}, "images": 2, "batch": 2, "seed": 0}
    for words in (
        ["import-model", "ect", str(model)],
        ["export", str(model)],
        ["sample", json.dumps(settings), "--model", str(model)],
    ):
        assert main.main([*words, "--out", str(out)]) == 1
        yield capsys.readouterr().err.strip().removeprefix(f"ect {words[0]}: ")
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def tensors():
    return weights()


@pytest.mark.parametrize(("key", "value", "said"), CASES.values(), ids=CASES)
def test_a_description_that_no_model_has_is_one_line(
    tensors, tmp_path, capsys, key, value, said, soon
):
    model = written(tmp_path / "model.safetensors", described(key, value), tensors)
    for line in lines(model, tmp_path, capsys):
        assert line.startswith(f"{model}: ") and said in line and "allowed" in line, line
        assert len(line.splitlines()) == 1 and line.isprintable() and len(line) < 1500


@pytest.mark.parametrize("key", about.KEYS)
def test_a_key_that_is_missing_is_named(tensors, tmp_path, capsys, key):
    description = {name: value for name, value in ABOUT.items() if name != key}
    model = written(tmp_path / "model.safetensors", description, tensors)
    for line in list(lines(model, tmp_path, capsys)):
        assert key in line and len(line.splitlines()) == 1


NUMBERS = {
    "nan": (lambda v: v.index_fill(0, torch.tensor(0), math.nan), "NaN or infinity in stem.weight"),
    "inf": (lambda v: v / 0, "NaN or infinity in stem.weight"),
    "whole": (lambda v: v.int(), "stem.weight of torch.int32; allowed: torch.float16"),
    "complex": (lambda v: v + 1j, "stem.weight of torch.complex64"),
    "shape": (lambda v: v[:4].clone(), "stem.weight (4, 1, 3, 3) instead of (8, 1, 3, 3)"),
    "scalar": (lambda v: torch.tensor(1.0), "stem.weight () instead of"),
}


@pytest.mark.parametrize(("damage", "said"), NUMBERS.values(), ids=NUMBERS)
def test_weights_are_finite_numbers_of_the_network(tensors, tmp_path, capsys, damage, said):
    other = tensors | {"stem.weight": damage(tensors["stem.weight"])}
    model = written(tmp_path / "model.safetensors", ABOUT, other)
    for line in lines(model, tmp_path, capsys):
        assert line.startswith(f"{model}: weights: found ") and said in line, line
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"about"', "{", "[" * 10**5])
def test_metadata_that_is_no_mapping_is_one_line(tensors, tmp_path, text):
    model = tmp_path / "model.safetensors"
    save_file(tensors, model, {"about": text})
    with pytest.raises(ValueError, match=r"model\.safetensors: .*(content: found|not a)") as line:
        ect.load(model)
    assert len(str(line.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {}, CHAIN, {"sd": 1}, {"process": "flow", "parameterization": "velocity"},
        {"c_noise": "ddpm", "c_in": "one"}, {"process": "vp_linear", "parameterization": "noise"},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_model_can_have_is_read(tensors, tmp_path, changes):
    model = written(tmp_path / "model.safetensors", ABOUT | changes, tensors)
    assert ect.load(model).sample(2).shape == (2, 8, 8, 1)
    older = {k: v for k, v in ABOUT.items() if k not in ("c_noise", "c_in")}
    written(model, older, tensors)
    assert ect.load(model).about == older


def test_the_known_processes_are_those_that_are_built():
    assert set(build.PROCESSES) == set(PROCESSES)
