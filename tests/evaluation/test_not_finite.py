"""NaN and infinity end a job in one line: no black images, no distance of them, nothing written."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ect
from ect.cli import main
from ect.data import batches
from ect.evaluation import features, metrics, trace
from ect.models import build
from ect.models.export import sample as script
from ect.runtime import checkpoint

ABOUT = {
    "network": {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
    "process": "ve", "parameterization": "edm", "c_noise": "log_s", "c_in": "scaled",
    "shape": [1, 8, 8], "sd": 0.5, "shift": 127.5, "scale": 1 / 127.5,
}  # fmt: skip
SETTINGS = {"kind": "multistep", "options": {}, "images": 4, "batch": 4, "seed": 0}


@pytest.fixture
def model(tmp_path):
    """A model whose weights are finite and whose images are not: its last layer overflows."""
    network = build.make_network(ABOUT["network"], ABOUT["shape"])
    weights = network.state_dict()
    weights["head.bias"] = torch.full_like(weights["head.bias"], 3e38)
    weights["head.weight"] = torch.full_like(weights["head.weight"], 3e38)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, weights, **ABOUT)
    return path


CASES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@pytest.mark.parametrize("value", CASES.values(), ids=CASES)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_images_that_are_not_finite_are_counted(value, precision):
    x = torch.zeros(5, 3, 2, 2)
    x[1, 0, 0, 0] = x[3, 2, 1, 1] = x[3, 1, 1, 1] = value
    with pytest.raises(FloatingPointError) as end:
        batches.decode(x, ABOUT, precision)
    line = str(end.value)
    assert line.startswith(f"2 of 5 images hold NaN or infinity, computed in {precision}; allowed")
    assert ("65504" in line) == (precision == "fp16") and len(line.splitlines()) == 1
    assert (batches.decode(x[:1], ABOUT, precision) == 128).all()


def test_every_way_to_draw_says_so(model, tmp_path, capsys, monkeypatch):
    with pytest.raises(FloatingPointError, match=r"3 of 3 images .* computed in fp32"):
        ect.load(model).sample(3)
    out = tmp_path / "out"
    for changes in ({}, {"precision": "bf16"}, {"kind": "heun", "options": {"steps": 2}}):
        words = ["sample", json.dumps(SETTINGS | changes), "--model", str(model)]
        assert main.main([*words, "--out", str(out)]) == 1
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("ect sample: 4 of 4 images hold NaN") and "allowed" in line
        assert f"computed in {changes.get('precision', 'fp32')}" in line
    assert not (out / "samples.npz").exists() and not (out / "run.json").exists()
    checkpoint.write_json(tmp_path / "config.json", ABOUT)
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["sample.py", "--n", "2", "--out", str(tmp_path / "a.png")])
    with pytest.raises(SystemExit, match=r"^sample\.py: 2 of 2 images hold NaN"):
        script.main()
    assert not (tmp_path / "a.png").exists()


def test_pixels_become_uint8_where_they_are_checked_alone():
    """Other casts are of whole numbers: scikit-learn's digits, 16-bit images, bytes of a file."""
    root, casts = Path(ect.__file__).parent, set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                cast = node.func.attr in ("to", "astype", "type", "byte")
                if cast and (node.func.attr == "byte" or "uint8" in ast.unparse(node)):
                    casts.add(str(path.relative_to(root)))
    assert casts == {"data/batches.py", "data/sources.py", "data/decode.py"}


SETS = {"nan": math.nan, "inf": math.inf, "overflow": 1e200}


@pytest.mark.parametrize("value", SETS.values(), ids=SETS)
def test_a_metric_that_is_not_finite_is_named(value):
    real = np.random.default_rng(0).normal(size=(20, 3))
    drawn = real.copy()
    drawn[3, 1] = value
    with pytest.raises(FloatingPointError, match=r"^fd is nan for 20 images and 20 of reference"):
        metrics.measures(["fd"], drawn, real, 2)
    with pytest.raises(FloatingPointError, match=r"^kd is (nan|inf)"):
        metrics.measures(["kd"], drawn, real, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_not_kept(value, tmp_path):
    pixels = np.zeros((3, 4, 4, 1), np.uint8)
    bad = torch.tensor([[0.0, 1.0], [value, 2.0], [3.0, 4.0]])
    with pytest.raises(FloatingPointError, match=r"^features: those of 1 of 3 images"):
        features.of_batches(lambda _: bad, [pixels])
    features.save(tmp_path / "f.safetensors", bad, "mine")
    with pytest.raises(FloatingPointError, match=r"f\.safetensors: features: those of 1 of 3"):
        features.load(tmp_path / "f.safetensors")


def test_evaluate_writes_no_such_distance(tmp_path, capsys):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    features.save(good, torch.randn(20, 3), "mine")
    features.save(bad, torch.full((20, 3), 1e38) * torch.randn(20, 3).sign(), "mine")
    settings = {"features": {"extractor": "classifier", "kd_subsets": 2}, "cell": {}}
    settings |= {"metrics": ["kd"]}
    words = ["evaluate", json.dumps(settings), "--samples", str(bad), "--reference", str(good)]
    huge = torch.full((20, 3), 1e300, dtype=torch.float64)
    features.save(bad, huge, "mine")
    assert main.main([*words, "--out", str(tmp_path / "m.json")]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("ect evaluate: kd is ") and "allowed: a finite" in line
    assert not (tmp_path / "m.json").exists()


def test_a_trace_has_no_such_value():
    rows = [{"quantity": "end_to_end", "s": 0.1, "value": v} for v in (1.0, math.nan)]
    with pytest.raises(
        FloatingPointError, match=r"^end_to_end is nan at s = 0.1 of the model after"
    ):
        list(trace.finite(rows, 1000))


WRITTEN = {
    "top": ({"fd": math.nan}, "fd is nan"),
    "deep": ({"steps": [{"k": 2, "test": math.inf}]}, "steps.0.test is inf"),
    "tuple": ({"evaluations": [((0.5,), -math.inf)]}, "evaluations.0.1 is -inf"),
    "numpy": ({"fd": np.float64("nan")}, "fd is nan"),
}


@pytest.mark.parametrize(("value", "said"), WRITTEN.values(), ids=WRITTEN)
def test_json_holds_finite_numbers_and_an_old_file_stays(tmp_path, value, said):
    path = tmp_path / "m.json"
    checkpoint.write_json(path, {"fd": 1.0})
    before = path.read_bytes()
    with pytest.raises(FloatingPointError, match=f"m.json: {said}; allowed: a finite number"):
        checkpoint.write_json(path, value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
