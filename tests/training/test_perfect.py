"""The loss of the perfect consistency function of Gaussian data has its closed forms."""

import csv
import math

import pytest
import torch

from ect.data.batches import Images
from ect.models.build import make_process
from ect.process import expand
from ect.registry import PROCESSES
from ect.training import parts, perfect
from tests.helpers.runs import TUNE, changed

SPECTRUM = torch.tensor([4.0, 1.0, 0.25, 0.01], dtype=torch.float64)
NEAR = changed(TUNE, schedule={"map": "fixed", "options": {"q": 1e5}, "clock": "noise"})
NORMAL = {"kind": "lognormal", "options": {"mean": -0.5, "std": 1e-6}}


def of(settings, spectrum=SPECTRUM):
    objective = parts.make_objective(settings, 0.5)
    return objective, perfect.Gaussian(objective.process, spectrum)


@pytest.mark.parametrize("process", PROCESSES)
def test_it_is_constant_along_a_path_of_the_ode_and_ends_at_its_image(process):
    """dy/ds = (y - E[x_0 | y]) / s has the paths y(s) = y(0) sqrt((lambda + s^2) / lambda)."""
    process = make_process({"process": process})
    f = perfect.Gaussian(process, SPECTRUM)
    image = torch.tensor([[1.0, -0.5, 2.0, 0.1]], dtype=torch.float64).view(1, 1, 1, 4)
    for s in (0.01, 0.3, 2.0, 40.0):
        t = process.time(torch.tensor([s], dtype=torch.float64))
        s = expand(process.clock(t), image)
        y = image * ((SPECTRUM + s**2) / SPECTRUM).sqrt()
        found = f(y * expand(process.coefficients(t)[0], image), t)
        torch.testing.assert_close(found, image, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("process", ["ve", "flow"])
def test_the_slope_has_its_closed_form_as_r_comes_to_s(process):
    objective, f = of(changed(NEAR, process=process))
    found = perfect.losses(objective, f, NORMAL, 0.5, 65536).square()
    s = math.exp(NORMAL["options"]["mean"])
    wanted = float(((SPECTRUM / (SPECTRUM + s**2)) ** 2).sum())
    assert float(found.mean()) == pytest.approx(wanted, rel=0.02)


def test_the_squared_distance_has_its_closed_form_at_a_finite_gap():
    settings = changed(
        NEAR,
        schedule__options={"q": 6},
        recipe__distance={"kind": "squared", "c": 0.0},
        recipe__weight="uniform",
    )
    objective, f = of(settings)
    found = float(perfect.losses(objective, f, NORMAL, 0.5, 65536).mean())
    s = math.exp(-0.5)
    r = float(objective.schedule(torch.tensor([s]), 0.5))
    assert 0 < r < 0.9 * s
    a, b = ((SPECTRUM / (SPECTRUM + level**2)).sqrt() for level in (s, r))
    wanted = float((SPECTRUM * (a - b) ** 2 + (s * a - r * b) ** 2).mean())
    assert found == pytest.approx(wanted, rel=0.02)


def test_a_teacher_that_knows_the_ode_leaves_no_loss_but_that_of_its_step():
    """With the target of ECD both ends lie on one path, up to the error of Heun's step."""
    settings = changed(TUNE, target="heun", schedule=NEAR["schedule"])
    settings = changed(settings, schedule__options={"q": 256}, recipe__weight="uniform")
    objective, f = of(settings)
    apart, _ = of(changed(settings, target="own"))
    objective.teacher = perfect.Gaussian(objective.process, SPECTRUM, power=1)
    own, taught = (float(perfect.losses(o, f, NORMAL, 0.5).mean()) for o in (apart, objective))
    assert taught < own / 100


def test_the_spectrum_is_that_of_the_images(digits_file):
    images = Images(digits_file)
    x = images.encode(images.pixels[:5000]).flatten(1).double()
    found = perfect.spectrum(images)
    assert float(found.sum()) == pytest.approx(float(x.var(0, correction=0).sum()), rel=1e-6)
    assert len(found) == 64 and (found > 0).all()


def test_the_job_writes_the_same_file_again(digits_file, tmp_path):
    for name in ("a.csv", "b.csv"):
        perfect.run(TUNE, digits_file, tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == perfect.POINTS and rows[0]["images"] == "0"
    assert all(float(row["loss"]) > 0 for row in rows)
