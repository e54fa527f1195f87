"""Benchmarks run: on something small where that is possible; the others only start."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from ect.schedule import CONTINUOUS_TIME, DIFFERENTIATED
from ect.training import train
from tests.helpers.compiling import without_kernels
from tests.helpers.runs import TUNE, changed

BENCH = Path(__file__).parent.parent / "bench"
ONE = ["--network", "digits", "--batch", "16", "--steps", "1"]
KINDS = ("tune", "pretrain", "sample", "sample, bf16")


@pytest.fixture
def printed(monkeypatch, capsys):
    """What a benchmark prints, run as a script in this process."""
    monkeypatch.syspath_prepend(BENCH)

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        try:
            runpy.run_path(str(BENCH / name), run_name="__main__")
        except SystemExit as end:
            assert not end.code
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "name", ["corruptions.py", "growth.py", "kills.py", "metrics.py", "overhead.py"]
)
def test_a_benchmark_that_takes_long_says_what_it_takes(name, printed):
    assert printed(name, "--help").startswith(f"usage: {name}")


SMALL = ["--model", "model.safetensors", "--data", "data.safetensors"]
STORED = ["--path", ".", "--out", "out", "--work", "work"]
MISTAKES = [
    ("step.py", ["--batch", "0"], "--batch: found '0'; allowed: a whole number from 1 to"),
    ("step.py", ["--dropout", "nan"], "--dropout: found 'nan'; allowed: a number from 0 to 0.99"),
    ("step.py", ["--threads", "-1"], "--threads: found '-1'; allowed: a whole number from 1"),
    ("step.py", ["--against", "."], "--against: found ., without training/loss.py; allowed"),
    ("step.py", ["--out", "."], "--out: .: found a folder; allowed: the path of a regular file"),
    ("target.py", ["--precision", "fp16", "--kernels", "native"], "--precision: found fp16 with"),
    ("objectives.py", ["--warm-up", "-1"], "--warm-up: found '-1'; allowed: a whole number"),
    ("corruptions.py", [*STORED, "--count", "667"], "--count: found '667'; allowed: a whole"),
    ("corruptions.py", [*STORED, "--path", "none"], "--path: found 'none'; allowed: a folder"),
    ("corruptions.py", STORED, "corruptions.py: .: no images, found nothing"),
    ("growth.py", [], "--out: found nothing; allowed: a csv file"),
    ("growth.py", ["--out", "o.csv", "--images", "0"], "--images: found '0'; allowed: a whole"),
    ("kills.py", ["--seconds", "nan", "1"], "--seconds: found 'nan'; allowed: a number from"),
    ("metrics.py", ["--metrics", "kd"], "--metrics: found kd; allowed: fd, and others"),
    ("overhead.py", ["--study", "."], "--study: found ., without .snakemake/metadata; allowed"),
    ("rounding.py", [*SMALL, "--share", "1"], "--share: found '1'; allowed: a number from"),
    ("rounding.py", SMALL, "model.safetensors: not a readable checkpoint"),
    ("saving.py", ["--folder", "none"], "--folder: found 'none'; allowed: a folder that exists"),
]


@pytest.mark.parametrize("name, words, said", MISTAKES)
def test_a_mistake_in_an_option_is_one_line(name, words, said, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(BENCH / name), run_name="__main__")
    line = left.value.code if left.value.code != 2 else capsys.readouterr().err.splitlines()[-1]
    assert said in line and "\n" not in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted({name for name, *_ in MISTAKES} - {"target.py"}))
def test_every_number_of_a_benchmark_has_limits(name, monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    actions = runpy.run_path(str(BENCH / name))["parser"]()._actions
    assert not [action.option_strings for action in actions if action.type in (int, float)]


def test_sets_of_fewer_classes_share_no_image_and_leave_classes_out(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import corruptions

    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
    for classes in corruptions.KINDS["classes"][1]:
        sets = corruptions.of_classes(labels, classes, 50)
        assert sets.shape == (corruptions.SETS, 50) and len(np.unique(sets)) == sets.size
        assert all(len(np.unique(labels[rows])) == classes for rows in sets)


def test_what_a_long_benchmark_names_of_the_package_is_there(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCH)
    import kills
    import overhead

    kills.copied(tmp_path, 1)
    exec("\n".join(overhead.LOADS.values()), {})


def test_a_step_is_timed_and_split(printed):
    words = ("--precision", "bf16", "--threads", "1", "--matrix", "64")
    found = json.loads(printed("step.py", *ONE, *words))
    assert set(found["steps"]) == set(KINDS)
    work = found["steps"]
    assert work["tune"]["flops"] > work["pretrain"]["flops"] > work["sample"]["flops"] > 0
    assert found["threads"] == 1 and "target" in found["parts_seconds"]


def test_gradients_are_compared_on_equal_weights(monkeypatch, tmp_path):
    """Of eager and compiled steps: apart by rounding alone, whatever each was trained before."""
    without_kernels(monkeypatch)
    monkeypatch.syspath_prepend(BENCH)
    import step

    args = step.options("").parse_args(ONE)
    images = step.images_of(args, tmp_path, 64)
    eager, compiled = (step.Ours(args, images, "tune", compiled=kind) for kind in (False, True))
    eager.step()
    apart = step.gradients_apart(eager, compiled)
    assert 0 < apart["eager, double"] < 1e-3 and apart["compiled, eager"] < 1e-3


def test_the_share_of_own_targets_falls_from_stage_to_stage(printed):
    """81.1 % in the first stage, as is known in closed form."""
    stages = json.loads(printed("target.py", *ONE))["stages"]
    shares = [stage["share_r_zero"] for stage in stages]
    assert shares[0] == pytest.approx(0.811, abs=2e-3) and shares[0] > shares[1] > shares[2] == 0


def test_the_cost_of_each_objective_is_told_beside_ects(printed):
    found = json.loads(printed("objectives.py", *ONE, "--warm-up", "0"))["objectives"]
    differences = {f"{name}, difference" for name in {*DIFFERENTIATED} - {"alphaflow"}}
    assert set(found) == {"sigmoid", *CONTINUOUS_TIME, *differences}
    assert found["sigmoid"]["over_ect"] == [1, 1, 1]


def test_saving_is_timed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCH)
    import saving

    found = saving.costs(changed(TUNE, recipe__batch=4), saving.Noise((1, 8, 8)), tmp_path, 1)
    assert found["parameters"] < 1e5 < 1e6 * found["state_megabytes"]


def test_rounding_is_that_of_the_precision(digits_file, tmp_path, printed):
    network = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
    train.run(changed(TUNE, network=network), digits_file, tmp_path)
    model = tmp_path / "model.safetensors"
    text = printed(
        "rounding.py", "--model", str(model), "--data", str(digits_file), "--images", "4"
    )
    exact, *found = map(json.loads, text.splitlines())
    error = {(row["kernels"], row["precision"]): row["error"] for row in found}
    for kernels in ("torch", "native"):
        assert error[kernels, "fp32"] < 0.01 * error[kernels, "bf16"]
    assert exact["true_difference"] > 0
