"""A loss or gradient that is not finite: named, not saved, not tried again."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from ect.cli.main import main
from ect.objective import Objective, Terms
from ect.runtime import checkpoint, record
from ect.training import log, loop, parts, train
from tests.helpers.runs import TUNE, changed, contents
from tests.helpers.work import RUN

pytestmark = pytest.mark.usefixtures("few_lines")


def diverging(monkeypatch, at, patience=1):
    """Make the loss of the step that ends at image `at` infinite where s > 1; the loop asks
    the device for it every `patience` steps."""

    class Spoiled(Objective):
        def __call__(self, f, x, eps, s, progress, *rest):
            terms = super().__call__(f, x, eps, s, progress, *rest)
            if round(1000 * progress) + 100 != at:
                return terms
            return terms._replace(loss=torch.where(terms.s > 1, torch.inf, terms.loss))

    class Seldom(log.Meter):
        def __init__(self):
            super().__init__()
            self.patience = patience

    monkeypatch.setattr(parts, "Objective", Spoiled)
    monkeypatch.setattr(loop, "Meter", Seldom)


def test_a_run_that_diverges_says_where_and_is_not_repeated(
    words, undisturbed, tmp_path, monkeypatch, capsys
):
    work = tmp_path / ".run.work"
    step, taken = loop.step, []
    monkeypatch.setattr(loop, "step", lambda *args: taken.append(1) or step(*args))
    with monkeypatch.context() as patch:
        diverging(patch, at=600)
        assert main([*words, "--save-seconds", "0"]) == 1
        said = capsys.readouterr().err
        assert re.search(r"loss is not finite at image 600 where ln s is 0 to (\d|inf): ", said)
        assert f"the last good checkpoint is {work / 'state.safetensors'} (image 500)" in said
        assert len(said.splitlines()) == 1 and len(taken) == 6

        assert main(words) == 1 and len(taken) == 6
        again = capsys.readouterr().err.splitlines()
        assert said.strip() in again[-1] and f"delete {work / 'crash.json'}" in again[-1]
        patch.setattr(record, "code", lambda: "mended")
        assert main(words) == 1 and len(taken) == 7
    (work / "crash.json").unlink()
    assert main(words) == 0 and len(taken) == 12
    assert contents(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("patience, save_seconds", [(1, -1.0), (50, -1.0), (1, 60.0), (4, 60.0)])
def test_no_state_after_a_divergence_is_saved(
    patience, save_seconds, digits_file, tmp_path, monkeypatch
):
    """However seldom the device is asked, the step is named and the state before it is kept."""
    diverging(monkeypatch, at=600, patience=patience)
    with pytest.raises(FloatingPointError, match="image 600 where"):
        train.run(RUN, digits_file, tmp_path / "run", save_seconds=save_seconds)
    kept = tmp_path / ".run.work" / "state.safetensors"
    assert kept.exists() == (save_seconds < 0)
    if kept.exists():
        tensors, about = checkpoint.load(kept)
        assert about["seen"] == 500 and all(v.isfinite().all() for v in tensors.values())


@pytest.mark.parametrize(
    "levels, words",
    [
        ([-9, -4.5, 9], "-inf to -4, 3 to inf"),
        ([0.5], "0 to 1"),
        ([-3.5, -2.5, 0.5], "-4 to -2, 0 to 1"),
        (range(-9, 9), "-inf to inf"),
    ],
)
def test_noise_levels_are_named_by_their_bins(levels, words):
    s = torch.tensor(levels, dtype=torch.float32).exp()
    loss = torch.full_like(s, torch.nan)
    with pytest.raises(log.Diverged, match=f"at image 7 where ln s is {words}$"):
        log.Meter().add(Terms(loss, s, s, s), torch.tensor(False), 7)


OWN = """from ect.plugins import objective
@objective
def own(f, x, eps, s, r, progress): return f(x, s).flatten(1).mean(1) * float("nan")
"""
SQUARED = {"recipe__distance": {"kind": "squared"}, "recipe__weight": "uniform"}
ADVICE = {
    "huber": ({}, "or raise distance.c;"),
    "squared": (SQUARED, ": lower optimizer.lr;"),
    "plugin": (
        SQUARED
        | {"schedule": {"map": "own", "options": {}, "clock": "noise"}}
        | {"plugins": {"own.py": hashlib.sha256(OWN.encode()).hexdigest()}},
        "or mend the objective 'own' of own.py;",
    ),
}


@pytest.mark.parametrize("changes, words", ADVICE.values(), ids=ADVICE)
def test_the_advice_is_of_what_the_run_has(changes, words, digits_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    diverging(monkeypatch, at=100)
    with pytest.raises(FloatingPointError, match=f"image 100 where .*{words} nothing was"):
        train.run(changed(TUNE, **changes), digits_file, tmp_path / "run")


@pytest.mark.parametrize("loss, gradient", [(1.0, 1.0), (torch.inf, 1.0), (1.0, torch.nan)])
def test_finite_is_the_loss_and_every_gradient(loss, gradient):
    parameters = [torch.zeros(3, requires_grad=True) for _ in range(3)]
    parameters[0].grad = torch.ones(3)
    parameters[2].grad = torch.tensor([0.0, gradient, 0.0])
    fine = log.finite(torch.tensor(loss), parameters)
    assert bool(fine) == (loss == gradient == 1.0)


def test_a_gradient_that_is_no_number_is_named():
    terms = Terms(torch.ones(2), torch.ones(2), torch.zeros(2), torch.ones(2))
    with pytest.raises(log.Diverged, match=r"^the gradient is not finite at image 7$"):
        log.Meter().add(terms, torch.tensor(False), 7)
