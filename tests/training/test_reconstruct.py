"""Averages of other lengths, after the fact: what the stored ones determine, and how nearly."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ect.cli import main
from ect.models import build
from ect.runtime import checkpoint
from ect.training import average, train
from ect.training.reconstruct import product, solve
from tests.helpers.configs import DEFAULT
from tests.helpers.runs import PRETRAIN, changed

GRID = [(k / 8, std) for k in range(1, 9) for std in (0.05, 0.1)]
SETTINGS = changed(PRETRAIN, recipe__ema_std=[0.05, 0.1], recipe__batch=10)


def profile(t, std, n):
    """(g + 1) n^g / t^(g + 1) up to t."""
    g = average.exponent(std)
    return np.where(n <= t, (g + 1) * n**g / t ** (g + 1), 0.0)


@pytest.mark.parametrize("one", GRID[::3])
@pytest.mark.parametrize("other", GRID[::5])
def test_the_inner_product_is_the_integral_of_both_profiles(one, other):
    n = (np.arange(200_000) + 0.5) / 200_000
    wanted = (profile(*one, n) * profile(*other, n)).mean()
    (t, std), (other_t, other_std) = one, other
    found = product(t, average.exponent(std), other_t, average.exponent(other_std))
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("index", range(len(GRID)))
def test_a_stored_profile_is_its_own_reconstruction(index):
    x, error = solve([one for one in GRID if one[0] <= GRID[index][0]], GRID[index])
    np.testing.assert_allclose(x, np.eye(len(x))[index], atol=1e-9)
    assert error < 1e-6


# As share of the norm, from stds of 0.05 and 0.10 at 8 equally spaced times.
ERRORS = {0.03: 0.10, 0.06: 0.012, 0.075: 0.013, 0.09: 0.006, 0.15: 0.033, 0.2: 0.078}


@pytest.mark.parametrize("std, wanted", ERRORS.items())
def test_the_error_is_the_distance_of_the_profiles(std, wanted):
    x, error = solve(GRID, (1.0, std))
    n = (np.arange(100_000) + 0.5) / 100_000
    aim = profile(1.0, std, n)
    found = sum(share * profile(*one, n) for share, one in zip(x, GRID))
    distance = np.sqrt(((found - aim) ** 2).mean() / (aim**2).mean())
    assert x.sum() == pytest.approx(1)
    assert error == pytest.approx(distance, rel=1e-2) == pytest.approx(wanted, abs=4e-3)


def test_no_other_combination_is_nearer():
    """Moving weight from any stored average to any other one makes the error larger."""
    x, error = solve(GRID, (1.0, 0.075))
    t, g = np.array([(t, average.exponent(std)) for t, std in GRID]).T
    inner, end = product(t[:, None], g[:, None], t, g), average.exponent(0.075)
    aims, square = product(t, g, 1.0, end), product(1.0, end, 1.0, end)

    def distance(x):
        return np.sqrt(1 - 2 * x @ aims / square + x @ inner @ x / square)

    assert distance(x) == pytest.approx(error, rel=1e-6)
    moves = np.eye(len(x))[:, None] - np.eye(len(x))
    others = [distance(x + 1e-2 * move) for move in moves.reshape(-1, len(x)) if move.any()]
    assert min(others) > error


@pytest.mark.parametrize("std, within", [(0.06, 0.012), (0.075, 0.013), (0.15, 0.033)])
def test_along_a_known_trajectory_it_is_the_direct_average_within_the_error(std, within):
    """Weights that wander for 4,000 steps: (found - direct)^2 is at most error^2 |p|^2 times the
    integral of their squares."""
    steps, size = 4000, 16
    weights = np.random.default_rng(0).standard_normal((steps, 50)).cumsum(0) / np.sqrt(steps)
    recipe, stored = {"ema_std": [0.05, 0.1, std]}, {}
    averages = [{"a": torch.zeros(50, dtype=torch.float64)} for _ in range(3)]
    for step, row in enumerate(weights, 1):
        average.advance(averages, recipe, {"a": torch.from_numpy(row)}, step * size, size)
        if step % 500 == 0:
            stored |= {(step, k): one["a"].numpy().copy() for k, one in enumerate(averages)}
    profiles = [(step, k) for step, k in stored if k < 2]
    lengths = recipe["ema_std"]
    x, error = solve([(step, lengths[k]) for step, k in profiles], (steps, std))
    found = sum(share * stored[key] for share, key in zip(x, profiles))
    direct = stored[steps, 2]
    g = average.exponent(std)
    norm = np.sqrt(product(1.0, g, 1.0, g) * (weights**2).mean(0))
    assert error == pytest.approx(within, abs=1e-3)
    assert (np.abs(found - direct) <= error * norm + 1e-3).all()
    assert np.abs(found - direct).max() < 0.01 * np.abs(weights).max()


@pytest.fixture(scope="module")
def chain(digits_file, tmp_path_factory):
    """Milestones after 1, 2 and 3 thousand images, which keep two averages."""
    folder, before = tmp_path_factory.mktemp("chain"), None
    for kimg in (1, 2, 3):
        step = changed(SETTINGS, first_kimg=kimg - 1, last_kimg=kimg)
        train.run(step, digits_file, folder / f"k{kimg}", resume=before)
        before = folder / f"k{kimg}" / "state.safetensors"
    return folder


def words(chain, out, std, kimgs=(1, 2, 3), stored=(0.05, 0.1)):
    settings = f'{{"ema_std": {std}, "stored": {list(stored)}}}'
    states = [str(chain / f"k{kimg}" / "state.safetensors") for kimg in kimgs]
    model = str(chain / f"k{max(kimgs)}" / "model.safetensors")
    return ["reconstruct-average", settings, "--model", model, "--states", *states, "--out", out]


@pytest.mark.parametrize("kimg", [2, 3])
def test_the_published_average_of_a_milestone_is_reconstructed(chain, tmp_path, capsys, kimg):
    out = str(tmp_path / "model.safetensors")
    assert main.main(words(chain, out, 0.05, range(1, kimg + 1))) == 0
    assert "0.00%" in capsys.readouterr().err
    (found, about), (wanted, of) = (
        build.read(path) for path in (out, chain / f"k{kimg}" / "model.safetensors")
    )
    assert about == of
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


def test_a_length_that_a_run_kept_itself_is_reconstructed(chain, digits_file, tmp_path):
    """Near to a run with that average: nearer than to those that the chain keeps."""
    out = str(tmp_path / "model.safetensors")
    assert main.main(words(chain, out, 0.075)) == 0
    found = build.read(out)[0]
    train.run(
        changed(SETTINGS, recipe__ema_std=0.075, last_kimg=3), digits_file, tmp_path / "direct"
    )
    direct = build.read(tmp_path / "direct" / "model.safetensors")[0]
    last = checkpoint.load(chain / "k3" / "state.safetensors")[0]

    def apart(weights):
        return sum((weights[k] - direct[k]).square().sum() for k in direct).sqrt()

    others = [apart(checkpoint.within(head, last)) for head in average.names(2)]
    assert apart(found) < 0.25 * min(others)


MISTAKES = {
    "far": ({"std": 0.01}, "ema_std: found 0.01, which averages of 0.05, 0.1 at 3 milestones"),
    "more": ({"std": 0.07, "stored": (0.05, 0.1, 0.2)}, "found averages over [0.05, 0.1]; allowed"),
    "others": ({"std": 0.07, "stored": (0.05, 0.2)}, "over [0.05, 0.2], as `stored` says"),
    "twice": ({"std": 0.07, "kimgs": (1, 1)}, "found images seen 1000, 1000; allowed: milestones"),
}


@pytest.mark.parametrize("options, said", MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_be_reconstructed_is_one_line(chain, tmp_path, capsys, options, said):
    out = tmp_path / "model.safetensors"
    assert main.main(words(chain, str(out), **options)) == 1
    line = capsys.readouterr().err.strip()
    assert said in line and len(line.splitlines()) == 1 and not out.exists()


def test_milestones_of_two_chains_are_refused(chain, digits_file, tmp_path, capsys):
    """Also the model, which describes the network, is of the states' chain."""
    other = changed(SETTINGS, seed=1, last_kimg=1)
    train.run(other, digits_file, tmp_path / "k1")
    settings = '{"ema_std": 0.07, "stored": [0.05, 0.1]}'
    state, model = (str(tmp_path / "k1" / f"{name}.safetensors") for name in ("state", "model"))
    ours = [str(chain / f"k{kimg}" / "state.safetensors") for kimg in (2, 3)]
    for given, states in (
        (model, ours), (str(chain / "k3" / "model.safetensors"), [state, *ours])
    ):  # fmt: skip
        command = ["reconstruct-average", settings, "--model", given, "--states", *states]
        assert main.main([*command, "--out", str(tmp_path / "average.safetensors")]) == 1
        line = capsys.readouterr().err.strip()
        assert "a run whose seed is " in line and len(line.splitlines()) == 1


def test_a_state_without_one_of_the_averages_is_not_resumed(chain, digits_file, tmp_path):
    more = changed(SETTINGS, recipe__ema_std=[0.05, 0.1, 0.2], first_kimg=1, last_kimg=2)
    with pytest.raises(ValueError, match="found missing: average2"):
        train.run(more, digits_file, tmp_path, resume=chain / "k1" / "state.safetensors")


def test_averages_with_a_half_life_have_no_lengths(digits_file, tmp_path, capsys):
    train.run(PRETRAIN, digits_file, tmp_path / "k1")
    assert main.main(words(tmp_path, str(tmp_path / "out.safetensors"), 0.1, (1,), (0.1,))) == 1
    assert "found an average with a half-life; allowed: over [0.1]" in capsys.readouterr().err


def test_the_plan_refuses_an_average_that_its_job_would(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys = {"ema_std": [0.05, 0.1], "ema_halflife_kimg": None, "ema_ramp": None}
    config = changed(DEFAULT, pretrain__ve=DEFAULT["pretrain"]["ve"] | keys)
    for ema_std, code in ((0.07, 0), (0.25, 1)):
        average = {"pretrain": "ve", "kimg": 6, "ema_std": ema_std}
        Path("config.yaml").write_text(yaml.safe_dump(config | {"averages": {"a": average}}))
        assert main.main(["plan"]) == code
    line = capsys.readouterr().err
    assert line.startswith("ect plan: config.yaml: line ")
    assert "averages.a.ema_std: found 0.25, which averages of 0.05, 0.1 at 1 milestones" in line
