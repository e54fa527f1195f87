"""The limit trained from the command line by each derivative, also with the native kernels."""

import json

import pytest

from ect.cli.main import main
from tests.helpers.runs import PRETRAIN, TUNE, changed

SMALL = {"network__channels": 16, "recipe__batch": 250}
LIMIT = changed(
    TUNE,
    **SMALL,
    recipe__weight="uniform",
    recipe__distance={"kind": "squared", "c": 0.0},
    recipe__prior={"kind": "lognormal", "options": {"mean": -0.8, "std": 1.0}},
    schedule={"map": "continuous", "options": {"warmup": 0.5, "c": 0.1}, "clock": "noise"},
    snapshots=0,
)
DIFFERENCE = changed(LIMIT, recipe__derivative="difference")


def test_differences_train_as_the_derivative_does_on_any_kernels(digits_file, tmp_path):
    def trained(name, settings, *words):
        given = ["train", json.dumps(settings), "--data", str(digits_file), *words]
        assert main([*given, "--out", str(tmp_path / name)]) == 0
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    trained("start", changed(PRETRAIN, **SMALL))
    init = ("--init", str(tmp_path / "start" / "model.safetensors"))
    exact = trained("exact", LIMIT, *init)
    assert len(exact) == 4 and exact[0] > 0
    for settings in (DIFFERENCE, changed(DIFFERENCE, recipe__kernels="native")):
        found = trained(settings["recipe"].get("kernels", "torch"), settings, *init)
        assert found == pytest.approx(exact, rel=2e-3) and found != exact
