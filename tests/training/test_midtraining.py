"""Mid-training (CMT): solved trajectories, their file, f on their points, and its settings."""

import functools
import re

import pytest
import torch

from ect import sampler
from ect.cli.main import main
from ect.config import verbs
from ect.consistency import Consistency
from ect.data import trajectories
from ect.data.batches import Images
from ect.data.trajectories import Trajectories
from ect.evaluation import solve
from ect.models import build
from ect.models.build import PROCESSES
from ect.objective import Objective, squared, uniform
from ect.process import VE, Flow, expand
from ect.runtime import checkpoint
from ect.runtime.seeds import seed_of
from ect.schedule import zero
from ect.training import loop, train
from ect.training.parts import make_objective
from ect.training.perfect import Gaussian
from tests.helpers import mixture
from tests.helpers.runs import PRETRAIN, TUNE, changed, contents
from tests.test_docs import ROOT

SPECTRUM = torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64)
SOLVE = {"steps": 5, "count": 12, "batch": 6, "seed": 0}
MID = changed(
    TUNE,
    recipe__weight="uniform",
    recipe__trajectories="solved",
    schedule=PRETRAIN["schedule"],
)


@pytest.fixture(scope="module")
def files(digits_file, tmp_path_factory):
    """(a pretrained model, trajectories of it)."""
    folder = tmp_path_factory.mktemp("solved")
    train.run(PRETRAIN, digits_file, folder)
    model = folder / "model.safetensors"
    solve.run(SOLVE, model, folder)
    return model, folder / "trajectories.safetensors"


def path_of(process, steps):
    """(points, levels) of trajectories from 64 draws of noise, by the exact denoiser of Gaussian
    data."""
    levels = sampler.even(steps)
    noise = torch.randn((64, 1, 1, 3), generator=torch.Generator().manual_seed(0)).double()
    teacher = Gaussian(process, SPECTRUM, power=1)
    return [*sampler.dpm_path(teacher, process, noise * levels[0], levels)], levels


@pytest.mark.parametrize("process", [p() for p in PROCESSES.values()], ids=list(PROCESSES))
def test_points_lie_on_the_path_of_gaussian_data_to_second_order(process):
    errors = []
    for steps in (40, 80):
        points, levels = path_of(process, steps)
        at = [(SPECTRUM + s**2).sqrt() for s in levels]
        exact = [points[0] * scale / at[0] for scale in at]
        errors.append(max((y - z).abs().max() for y, z in zip(points[:-1], exact)))
    assert errors[1] < 0.02 and 3.4 < errors[0] / errors[1] < 4.6


def test_the_loss_of_the_exact_map_vanishes_with_the_solvers_error():
    """And that of a denoiser does not: it leads to the mean of what may have been x_0."""
    found = {}
    for power in (0.5, 1.0):
        points, levels = path_of(VE(), 200)
        f = Gaussian(VE(), SPECTRUM, power=power)
        objective = Objective(VE(), zero, squared, uniform, 0.5)
        losses = []
        for y, s in zip(points, levels[:-1]):
            s = torch.full((64,), s, dtype=torch.float64)
            eps = (y - points[-1]) / expand(s, y)
            losses.append(objective(f, points[-1], eps, s, 0.0).loss.mean())
        found[power] = float(torch.stack(losses).mean())
    assert found[0.5] < 1e-4 < 0.1 < found[1.0]


def test_levels_are_even_in_their_logarithm_and_the_limit_of_the_grid():
    levels = torch.tensor(sampler.even(16, 0.002), dtype=torch.float64)
    assert levels[0] == 80 and levels[-1] == 0 and levels[-2] == pytest.approx(0.002)
    gaps = levels[:-1].log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(15))
    grid = torch.tensor(sampler.grid(16, rho=1e6), dtype=torch.float64)
    torch.testing.assert_close(levels, grid, rtol=1e-3, atol=0.0)


def test_a_batch_is_whole_trajectories_in_shuffled_epochs(files, digits_file):
    source = Trajectories(digits_file, files[1])
    tensors = checkpoint.load(files[1])[0]
    points, levels = tensors["points"], tensors["levels"]
    x, eps, s, _ = source.draw(0, 0, 60)  # one epoch
    assert torch.equal(s, levels[:-1].repeat(12))
    y = x + s[:, None, None, None] * eps
    found = torch.cat([y.unflatten(0, (12, 5)), x[::5, None]], dim=1)
    torch.testing.assert_close(found.flatten(1).sort(0).values, points.flatten(1).sort(0).values)
    parts = [source.draw(0, first, size) for first, size in ((0, 7), (7, 22), (29, 31))]
    for whole, *some in zip(source.draw(0, 0, 60), *parts):
        assert torch.equal(whole, torch.cat(some))
    others = source.draw(0, 60, 60)[0], source.draw(1, 0, 60)[0]
    for other in others:  # the next epoch, another seed: the same ones, in another order
        assert not torch.equal(other, x)
        assert torch.equal(other.flatten(1).sort(0).values, x.flatten(1).sort(0).values)


def test_trajectories_begin_with_noise_of_their_own(files):
    """Which no image of an evaluation has: those are seeded by small numbers."""
    points = checkpoint.load(files[1])[0]["points"]
    own = [seed_of(0, "trajectory", i) for i in range(12)]
    torch.testing.assert_close(points[:, 0], 80 * sampler.noise(own, 1, (1, 8, 8))[0])
    assert min(own) > 1e12
    f, process, _ = build.load_model(files[0])
    path = sampler.dpm_path(f, process, points[:6, 0], sampler.even(5))
    torch.testing.assert_close(points[:6], torch.stack([*path], dim=1))


def test_a_file_is_read_by_safetensors_and_the_same_when_it_is_solved_again(files, tmp_path):
    solve.run(SOLVE, files[0], tmp_path)
    assert (tmp_path / "trajectories.safetensors").read_bytes() == files[1].read_bytes()
    tensors, about = checkpoint.load(files[1])
    assert {k: tuple(v.shape) for k, v in tensors.items()} == {
        "points": (12, 6, 1, 8, 8), "levels": (6,), "labels": (12,),
    }  # fmt: skip
    assert about["classes"] == 0 and about["shape"] == [1, 8, 8]


def test_a_run_is_its_settings_and_moves_f_towards_the_ends(files, digits_file, tmp_path):
    model, solved = files
    for name in ("a", "b"):
        train.run(MID, digits_file, tmp_path / name, init=model, trajectories=solved)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    source = Trajectories(digits_file, solved)
    x, eps, s, _ = source.draw(3, 0, 60)
    errors = []
    for path in (model, tmp_path / "a" / "model.safetensors"):
        f, process, _ = build.load_model(path)
        t = process.time(s)
        errors.append(float(squared(f(process.noise(x, eps, t), t), x).mean()))
    assert errors[1] < 0.9 * errors[0]


def test_a_step_evaluates_the_network_once_as_the_docs_say(files, digits_file):
    calls, f = [], Consistency(lambda x, c: calls.append(1) or 0 * x, VE(), "edm", 0.5)
    source = Trajectories(digits_file, files[1])
    settings = MID | {"recipe": MID["recipe"] | {"batch": 20}}
    objective = make_objective(settings, 0.5)
    x, eps, s, label = loop.draw_batch(settings, source, objective, 0, 20, slice(0, 20))
    objective(f, x, eps, s, 0.0)
    text = (ROOT / "docs" / "objectives.md").read_text()
    (row,) = re.findall(r"^\| mid-training.*\| (\d) \| (\d) \|$", text, re.MULTILINE)
    assert row == ("0", str(len(calls))) and label is None


def test_training_finds_the_map_of_a_mixture():
    """In one step, from trajectories of the exact denoiser; regression on images alone does not."""
    process, levels = Flow(), sampler.even(16)
    noise = torch.randn((4096, 1, 1, 1), generator=torch.Generator().manual_seed(2))
    points = torch.stack(
        [*sampler.dpm_path(mixture.denoised, process, noise.double() * levels[0], levels)], dim=1
    )
    objective = Objective(process, zero, squared, uniform, mixture.SD)

    def batch(generator, size):
        rows = torch.randint(len(points), (size,), generator=generator)
        k = torch.randint(16, (size,), generator=generator)
        s, x = torch.tensor(levels)[k], points[rows, -1].float()
        return x, (points[rows, k].float() - x) / expand(s, x), s

    assert mixture.error(mixture.fitted(objective, batch)) < 0.15
    plain = mixture.fitted(objective, functools.partial(mixture.drawn, objective))
    assert mixture.error(plain) > 0.3


FAULTS = {
    "no file": (MID, {}, "recipe.trajectories is 'solved' without --trajectories"),
    "no recipe": (TUNE, {"trajectories": "solved"}, "with a recipe that names none"),
}


@pytest.mark.parametrize("settings, given, words", FAULTS.values(), ids=FAULTS)
def test_a_recipe_and_its_file_go_together(settings, given, words, files, digits_file, tmp_path):
    given = {key: files[1] for key in given}
    with pytest.raises(ValueError, match=re.escape(words)):
        train.run(settings, digits_file, tmp_path, init=files[0], **given)


def test_trajectories_of_other_images_are_refused(files, digits_file, write_digits, tmp_path):
    with pytest.raises(ValueError, match=r"trajectories of images .*; allowed: "):
        Trajectories(write_digits("unit"), files[1])
    other = tmp_path / "odd.safetensors"
    with pytest.raises(checkpoint.CheckpointError, match="not readable trajectories"):
        Trajectories(digits_file, files[0])
    about = {"shape": [1, 8, 8], "shift": 0.0, "scale": 1.0, "classes": 0}
    trajectories.write(other, about, [1.0, 2.0, 0.0], [0], (1, 8, 8), [torch.zeros(1, 3, 1, 8, 8)])
    with pytest.raises(checkpoint.CheckpointError, match=r"levels are .*falling ones"):
        Trajectories(digits_file, other)
    images = Images(digits_file)
    about = {"shape": [1, 8, 8], "shift": images.shift, "scale": images.scale, "classes": 3}
    trajectories.write(other, about, [2.0, 1.0, 0.0], [0], (1, 8, 8), [torch.zeros(1, 3, 1, 8, 8)])
    with pytest.raises(ValueError, match="of a network with 3 classes, for one with 0"):
        train.run(MID, digits_file, tmp_path / "run", init=files[0], trajectories=other)


ODD_POINTS = {
    "nan": ([2.0, 1.0, 0.0], float("nan"), "trajectory 1 holds NaN or infinity; allowed: finite"),
    "infinite": ([2.0, 1.0, 0.0], float("inf"), "trajectory 1 holds NaN or infinity"),
    "far": ([1e30, 1.0, 0.0], 0.0, "levels are [1.0000000150474662e+30, 1.0, 0.0]; allowed: fall"),
    "infinitely far": ([float("inf"), 1.0, 0.0], 0.0, "falling ones from 100000 or less"),
}


@pytest.mark.parametrize("levels, value, words", ODD_POINTS.values(), ids=ODD_POINTS)
def test_points_and_levels_made_by_hand_are_checked(digits_file, tmp_path, levels, value, words):
    images = Images(digits_file)
    about = {"shape": [1, 8, 8], "shift": images.shift, "scale": images.scale, "classes": 0}
    points = torch.zeros(3, 3, 1, 8, 8)
    points[1, 2, 0, 4, 4] = value
    trajectories.write(tmp_path / "t", about, levels, [0] * 3, (1, 8, 8), [points])
    with pytest.raises(checkpoint.CheckpointError, match=re.escape(words)):
        Trajectories(digits_file, tmp_path / "t")


@pytest.mark.parametrize("classes, labels", [(0, [0, 1]), (3, [0, 3]), (3, [-1, 2]), ("x", [0, 0])])
def test_labels_made_by_hand_are_classes(digits_file, tmp_path, classes, labels):
    images = Images(digits_file)
    about = {"shape": [1, 8, 8], "shift": images.shift, "scale": images.scale, "classes": classes}
    points = torch.zeros(2, 3, 1, 8, 8)
    trajectories.write(tmp_path / "t", about, [2.0, 1.0, 0.0], labels, (1, 8, 8), [points])
    with pytest.raises(checkpoint.CheckpointError, match="not readable trajectories"):
        Trajectories(digits_file, tmp_path / "t")


WRONG = {
    "map": ({"schedule": TUNE["schedule"]}, "found trajectories with the map 'sigmoid'"),
    "target": ({"target": "heun"}, "found target 'heun'"),
    "augment": ({"recipe__augment": {"p": 0.1}}, "found augment"),
    "truncate": ({"recipe__truncate": {"at": 1.0}}, "truncate"),
}


@pytest.mark.parametrize("changes, words", WRONG.values(), ids=WRONG)
def test_settings_that_do_not_fit_trajectories_are_refused(changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        verbs.require("train", changed(MID, **changes))


def test_a_tuned_model_has_no_trajectories(files, digits_file, tmp_path):
    """Its f leads to the end at once, and is no denoiser."""
    train.run(changed(TUNE, last_kimg=1), digits_file, tmp_path, init=files[0])
    with pytest.raises(ValueError, match=r"tuned with the map .* by its record; allowed: a pretr"):
        solve.run(SOLVE, tmp_path / "model.safetensors", tmp_path / "solved")


def test_the_verb_repeats_a_record(files, tmp_path):
    record = str(files[1].with_name("run.json"))
    main(["solve-trajectories", record, "--model", str(files[0]), "--out", str(tmp_path)])
    assert (tmp_path / "trajectories.safetensors").read_bytes() == files[1].read_bytes()
