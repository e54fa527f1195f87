"""One sd in f, in the weight and in the limit: the start's, the one that a recipe states, else the
images'."""

import pytest
import torch

from ect import registry
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.config.tune import Tune
from ect.data.batches import Images
from ect.models import build
from ect.objective import WEIGHTS
from ect.runtime import checkpoint
from ect.study import settings as study_settings
from ect.training import loop, train
from ect.training.parts import settings_with_start
from ect.training.state import State
from tests.helpers.configs import PICKLE
from tests.helpers.configs import changed as config_with
from tests.helpers.runs import PRETRAIN, changed
from tests.helpers.starts import settings

START_SD = 0.3
LIMIT = {"map": "continuous", "options": {"warmup": 0.1, "c": 0.1}, "clock": "noise"}


@pytest.fixture(scope="module")
def unit_digits(write_digits):
    """Digits in [-1, 1], whose sd is about 0.75."""
    return write_digits("unit")


@pytest.fixture
def start(unit_digits, tmp_path, make_unet):
    """A model file that says sd = 0.3."""
    about = build.description(PRETRAIN, Images(unit_digits)) | {"sd": START_SD}
    path = tmp_path / "start.safetensors"
    checkpoint.save(path, make_unet().state_dict(), **about)
    return path


def tuning(**changes):
    """Settings of a tuning run from a file, without dropout, with the weight `edm`."""
    return changed(settings(), recipe__dropout=0.0, recipe__weight="edm", **changes)


def first_step(settings, images, init):
    """(terms, objective, drawn batch) of a run's first step."""
    whole, found = settings_with_start(settings, init, images), []
    state = State(whole, images)
    state.start_from(checkpoint.load(init)[0])

    def watched(*arguments):
        objective = arguments[3]
        batch = loop.draw_batch(whole, images, objective, 0, 100, slice(0, 100))
        terms, *rest = step(*arguments)
        found.append((terms, objective, batch))
        return terms, *rest

    with pytest.MonkeyPatch.context() as patch:
        step = loop.step
        patch.setattr(loop, "step", watched)
        next(loop.loop(state, whole, images))
    return found[0]


def test_a_step_from_a_start_has_the_starts_sd_in_its_weight(start, unit_digits):
    """The loss is (1 / s^2 + 1 / sd^2) |f(x_s) - f(x_r)| with sd = 0.3, written out."""
    images = Images(unit_digits)
    assert images.sd > 0.7
    terms, objective, (x, eps, s, _) = first_step(tuning(), images, start)
    f = build.load_model(start)[0]
    r = objective.schedule(s, 0.0)
    at_s, at_r = (x + level.view(-1, 1, 1, 1) * eps for level in (s, r))
    with torch.no_grad():
        target = torch.where(r.view(-1, 1, 1, 1) > 0, f(at_r, r), x)
        distance = (f(at_s, s) - target).flatten(1).norm(dim=1)
    weight = (s**2 + START_SD**2) / (s * START_SD) ** 2
    torch.testing.assert_close(terms.loss, weight * distance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"schedule": LIMIT}], ids=["difference", "limit"])
def test_the_loss_has_the_sd_of_f(changes, start, unit_digits):
    _, objective, _ = first_step(tuning(**changes), Images(unit_digits), start)
    assert objective.sd == START_SD


def test_without_a_start_it_is_the_one_stated_or_the_images(unit_digits):
    images = Images(unit_digits)
    assert build.description(PRETRAIN, images)["sd"] == images.sd
    assert build.description(PRETRAIN | {"sd": 0.5}, images)["sd"] == 0.5


def test_a_start_of_another_sd_than_the_settings_is_named(start, unit_digits, tmp_path):
    own = tuning() | {key: PRETRAIN[key] for key in ("network", "process", "parameterization")}
    own |= {"c_noise": "log_s"}
    with pytest.raises(ValueError, match=r"start\.safetensors: .* sd 0\.3, .*; allowed: equal"):
        train.run(own, unit_digits, tmp_path / "out", init=start)
    train.run(own | {"sd": START_SD, "last_kimg": 1}, unit_digits, tmp_path / "out", init=start)
    assert checkpoint.load(tmp_path / "out" / "model.safetensors")[1]["sd"] == START_SD


def test_the_registry_names_the_weights_that_read_sd():
    s, r = torch.tensor([0.1, 1.0, 30.0]), torch.tensor([0.0, 0.5, 20.0])
    reading = [n for n, weight in WEIGHTS.items() if (weight(s, r, 0.5) != weight(s, r, 0.6)).any()]
    assert tuple(reading) == registry.WEIGHTS_OF_SD
    assert Tune.model_construct(weight="of_a_plugin").weight_reads_sd


BARE = {"format": "state_dict", "file": str(PICKLE), "network": "small", "process": "ve"}
BARE |= {"parameterization": "edm", "c_noise": "log_s"}
STARTS = {
    "edm": {"format": "edm", "file": str(PICKLE)},
    "ours": {"format": "ect", "file": str(PICKLE)},
    "bare": BARE,
    "bare_sd": BARE | {"sd": 0.5},
}


@pytest.mark.parametrize(
    "name, recipe, schedule, marked",
    [
        ("edm", "ect", "sigmoid", True),
        ("ours", "ect", "sigmoid", True),
        ("bare_sd", "ect", "sigmoid", True),
        ("bare", "ect", "sigmoid", False),  # the dataset's, as before
        ("edm", "ect_slope", "sigmoid", False),  # 1 / (s - r)
        ("edm", "plain", "limit", True),  # sqrt(s^2 + sd^2)
        ("edm", "plain", "sigmoid", False),
        ("ve", "ect", "sigmoid", False),
    ],
)
def test_only_losses_that_read_the_sd_of_a_start_are_trained_again(name, recipe, schedule, marked):
    config = config_with("init", STARTS)
    config["schedules"]["limit"] = {"map": "continuous", "warmup": 0.1}
    plain = {"distance": {"kind": "squared", "c": 0.0}, "weight": "uniform"}
    config["tune"]["plain"] = {"like": "ect", **plain}
    model = Tuned(Milestone(name, 0, 0), schedule, recipe, 60, 0)
    found = study_settings.train(Config.read(config), model)
    assert found.get("start_sd", False) is marked
