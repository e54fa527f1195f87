"""`figures.nearest` adds its jobs and changes nothing else."""

import copy

import pytest

from ect.config.config import Config, ConfigError
from ect.study import jobs, settings
from tests.helpers.configs import CUT, DEFAULT

NEAREST = {"figures/nearest": CUT | {"sampler": "two_step"}}
OWN = ("find_nearest", "tabulate_nearest", "draw_nearest")


def config(changes):
    """The default config with several keys set."""
    found = copy.deepcopy(DEFAULT)
    for path, value in changes.items():
        block, key = path.split("/")
        found[block][key] = value
    return found


def study(changes):
    return Config.read(config(changes))


def test_it_adds_its_own_jobs_and_changes_no_settings_of_others():
    plain, asked = Config.read(DEFAULT), study(NEAREST)
    before, after = jobs.jobs(plain), jobs.jobs(asked)
    added = [job for job in after if job not in before]
    assert set(before) < set(after) and sorted(job.rule for job in added) == sorted(OWN)
    folder = asked.compared().folder
    assert added[0].path == f"{folder}/nearest.safetensors" and folder.endswith("/s0/two_step")
    assert settings.evaluate(asked, None) == settings.evaluate(plain, None)
    assert "nearest" not in plain.model_dump()["figures"]


def test_its_model_is_trained_and_drawn_where_no_experiment_has_it():
    other = CUT | {"sampler": "four_step", "tune_kimg": 7}
    asked = study({"figures/nearest": other})
    added = {job.path: job.rule for job in jobs.jobs(asked) if job not in jobs.jobs(study(NEAREST))}
    folder = asked.compared().folder
    assert added[f"{folder}/samples.npz"] == "sample"
    assert added[f"{asked.compared().model.folder}/model.safetensors"] == "tune"


@pytest.mark.parametrize(
    "changes, told",
    [
        (
            {"figures/nearest": CUT | {"sampler": "none"}},
            "nearest.sampler: found 'none'; allowed: ",
        ),
        ({"figures/nearest": CUT}, "figures.nearest.sampler: missing"),
        ({"figures/nearest": NEAREST["figures/nearest"] | {"kimg": 7}}, "nearest.kimg: found 7"),
        (NEAREST | {"evaluation/export": ["features"]}, "allowed: with npz among it"),
    ],
    ids=["sampler", "without one", "milestone", "no images"],
)
def test_what_it_cannot_show_is_told(changes, told):
    with pytest.raises(ConfigError, match=told):
        study(changes)
