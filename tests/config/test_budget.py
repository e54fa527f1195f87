"""The budget of a study: what it scales, what it leaves, and that it fits as before."""

import pytest

from ect.config.budget import Scale, scale_of
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config, ConfigError
from ect.study import advice, jobs, settings
from tests.helpers.configs import DEFAULT, SEARCH, changed

UNIT = 6  # of the default study: the greatest common divisor of its numbers of images


def read(budget, path="budget", value=None):
    return Config.read({**changed(path, budget if value is None else value), "budget": budget})


def kimgs(study):
    """(thousand images of pretraining, of tuning) of every cell, in order."""
    pairs = [(m.start.kimg, m.kimg) if isinstance(m, Tuned) else (m.kimg, None)
             for m in (cell.model for cell in study.all_cells())]  # fmt: skip
    return pairs


@pytest.mark.parametrize("budget", [1 / 6, 0.5, 2, 4 / 3, 1.5])
def test_every_number_of_images_is_scaled_and_no_other_one(budget):
    whole, part = Config.read(DEFAULT), read(budget)
    scaled = [(a * budget, b and b * budget) for a, b in kimgs(whole)]
    assert kimgs(part) == scaled and part.scale.exact(budget)
    for model, other in zip(jobs.models(whole)[1], jobs.models(part)[1], strict=True):
        before, after = settings.train(whole, model), settings.train(part, other)
        assert after["last_kimg"] == before["last_kimg"] * budget
        assert after | {"last_kimg": 0} == before | {"last_kimg": 0}
    before, after = whole.pretrain["ve"], part.pretrain["ve"]
    assert after.optimizer.warmup_kimg == pytest.approx(before.optimizer.warmup_kimg * budget)
    assert after.ema_halflife_kimg == pytest.approx(before.ema_halflife_kimg * budget)
    assert (after.every, after.batch) == (before.every * budget, before.batch)
    assert [share for rows in part.experiments["split"].rows for share in rows.shares][-1] == 90


def test_a_budget_between_two_is_the_nearest_and_is_told():
    study = read(0.1)
    assert study.scale == Scale(6, 1) and Milestone("ve", 0, 5) in jobs.models(study)[0]
    (line,) = advice.advice(study)
    assert "0.1 was asked for, 0.167 is taken" in line and "6 thousand, here of 1" in line
    assert advice.advice(read(0.5)) == []


def test_a_search_and_an_average_are_scaled_too():
    study = read(0.5, "search", SEARCH)
    assert study.searched() == [study.shown("samples")]
    averaged = changed("averages", {"a": {"pretrain": "ve", "kimg": 30, "ema_std": 0.15}})
    averaged["pretrain"]["ve"] |= {"ema_std": 0.1, "ema_halflife_kimg": None, "ema_ramp": None}
    assert Config.read({**averaged, "budget": 0.5}).averages["a"].kimg == 15


def test_milestones_that_are_listed_are_scaled():
    config = changed("pretrain/ve/milestones", [6, 12, 30, 48, 54])
    config["pretrain"]["ve"] |= {"every": None}
    assert Config.read({**config, "budget": 0.5}).pretrain["ve"].milestones == [3, 6, 15, 24, 27]


@pytest.mark.parametrize("budget", [0.04, 0, -1, "much", 2e6])
def test_a_budget_that_no_study_has_is_refused(budget):
    with pytest.raises(ConfigError, match=r"^budget: found") as error:
        Config.read(DEFAULT | {"budget": budget})
    assert len(str(error.value).splitlines()) == 1


def test_the_least_budget_is_told():
    with pytest.raises(ConfigError, match=r"at least 0\.167, since .* 6 thousand"):
        read(0.01)


def test_a_study_without_one_is_as_it_was():
    assert "budget" not in Config.read(DEFAULT).model_dump(mode="json")
    assert Config.read(DEFAULT).scale is None
    assert scale_of(DEFAULT, 1) == Scale(UNIT, UNIT)
    assert read(1).experiments == Config.read(DEFAULT).experiments
