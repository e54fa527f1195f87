"""A replicate has other seeds of pretraining, tuning and sampling: the first one is the row without
the key, the others share nothing with it."""

import copy
import itertools

import pytest

from ect.config.cells import Milestone
from ect.config.config import Config, ConfigError
from ect.study import jobs, settings
from tests.helpers.configs import DEFAULT, PICKLE, SEARCH, changed

ROWS = "experiments/split/rows"


def replicated(count, **row):
    """The default config, whose split has replicates in place of seeds."""
    rows = copy.deepcopy(DEFAULT["experiments"]["split"]["rows"][0])
    del rows["seeds"]
    return changed(ROWS, [rows | row | ({"replicates": count} if count else {})])


def settings_of(study, cell):
    return (
        settings.train(study, cell.model),
        settings.sample(study, cell.sampler, 0, cell.replicate),
        settings.evaluate(study, cell),
    )


def test_the_first_replicate_is_the_row_without_the_key():
    plain, one = Config.read(replicated(None)), Config.read(replicated(1))
    assert plain.cells("split") == one.cells("split")
    for cell in plain.cells("split"):
        assert settings_of(plain, cell) == settings_of(one, cell)
    assert jobs.jobs(plain) == jobs.jobs(one)
    assert "replicates" not in plain.model_dump()["experiments"]["split"]["rows"][0]
    assert "milestones" not in plain.model_dump()["pretrain"]["ve"]


@pytest.mark.parametrize("first", [0, 5])
def test_a_replicate_has_seeds_of_its_own_throughout(first):
    config = replicated(3)
    config["pretrain"]["ve"]["seed"] = first
    study = Config.read(config)
    cells = study.cells("split")
    assert len({cell.folder for cell in cells}) == len(cells) == 3 * 4 * 2
    for cell in cells:
        start, tuning = cell.model.start, settings.train(study, cell.model)
        pretraining = settings.train(study, start)
        seeds = settings.sample(study, cell.sampler, 0, cell.replicate)["seed"]
        assert (pretraining["seed"], start.seed) == (first + cell.replicate,) * 2
        assert (tuning["seed"], cell.model.seed) == (cell.replicate,) * 2
        assert seeds == cell.replicate * 1_000_000
        facts = settings.facts(study, cell)
        assert facts.get("replicate", 0) == cell.replicate and facts["seed"] == cell.replicate
    one = {(c.model.start.kimg, c.sampler): c for c in cells if c.replicate == 1}
    other = {(c.model.start.kimg, c.sampler): c for c in cells if c.replicate == 2}
    for key, cell in one.items():  # they differ in the seeds and in nothing else
        found = [[dict(part) for part in settings_of(study, c)] for c in (cell, other[key])]
        for parts in found:
            del parts[0]["seed"], parts[1]["seed"]
            parts[2]["cell"] = {k: v for k, v in parts[2]["cell"].items() if "rep" not in k}
            assert parts[2]["cell"].pop("seed") in (1, 2)
        assert found[0] == found[1]


def test_every_chain_is_planned_from_its_random_start():
    study = Config.read(replicated(3))
    milestones, _ = jobs.models(study)
    kimg = [m.kimg for m in milestones if m.pretrain == "ve" and m.seed == 2]
    assert kimg == list(range(0, 55, 6))
    assert len(set(milestones)) == len(milestones)


def test_an_imported_start_is_the_same_in_all_replicates():
    start = {"edm": {"format": "edm", "file": str(PICKLE)}}
    row = {"pretrain": ["edm"], "kimg": [0], "tune_kimg": 6, "total_kimg": None, "shares": None}
    config = replicated(2, **row) | {"init": start}
    config["dataset"] |= {"normalize": "unit"}
    config["experiments"]["split"]["kind"] = "methods"
    cells = Config.read(config).cells("split")
    assert {cell.model.start for cell in cells} == {Milestone("edm", 0, 0)}
    found = {(cell.model.seed, cell.replicate) for cell in cells}
    assert found == {(0, 0), (1, 1)}


def test_pretrained_models_have_replicates_too():
    row = {"pretrain": ["ve"], "kimg": [6], "samplers": ["heun"], "replicates": 3}
    config = changed("experiments/methods/rows", [row])
    cells = Config.read(config).cells("methods")
    assert [(cell.model.seed, cell.replicate) for cell in cells] == [(0, 0), (1, 1), (2, 2)]


def test_every_n_of_an_experiment_counts_the_same():
    rows = DEFAULT["experiments"]["methods"]["rows"]
    more = {k: v for k, v in rows[1].items() if k != "seeds"} | {"replicates": 3}
    with pytest.raises(ConfigError, match=r"methods: rows.0 has no replicates, others have"):
        Config.read(changed("experiments/methods/rows", [rows[0], more]))


@pytest.mark.parametrize("seed, meets", [(1_000_500, True), (3_000_500, False)])
def test_a_search_is_apart_from_the_images_of_every_replicate(seed, meets):
    config = replicated(3) | {"search": SEARCH | {"seed": seed}}
    if meets:
        with pytest.raises(ConfigError, match="seeds 1000000 to 1001999"):
            Config.read(config)
    else:
        Config.read(config)


def test_replicates_share_no_image_seed():
    config = replicated(2)
    config["evaluation"] |= {"images": 600_000, "repeats": 2}
    with pytest.raises(ConfigError, match=r"evaluation\.images: found 600000, drawn 2 times"):
        Config.read(config)


def test_totals_above_a_limit_are_left_out():
    rows = [DEFAULT["experiments"]["split"]["rows"][0] | {"total_kimg": 60 * k} for k in (1, 2)]
    config = changed(ROWS, [rows[0], rows[1] | {"shares": [0, 20]}])
    config["experiments"]["split"] |= {"kind": "scaling", "up_to_kimg": 60}
    study = Config.read(config)
    found = {cell.model.start.kimg + cell.model.kimg for cell in study.cells("split")}
    assert found == {60} and study.cells("split") == Config.read(DEFAULT).cells("split")
    config["experiments"]["split"]["up_to_kimg"] = 59
    with pytest.raises(ConfigError, match=r"split: up_to_kimg is 59; allowed: a total"):
        Config.read(config)


def test_milestones_lie_where_the_config_says():
    """Same chain, fewer stops: each goes on from the one before it."""
    points = [12, 30, 48, 54]
    config = replicated(2, shares=[0, 50, 80, 90])
    config["pretrain"]["ve"] |= {"every": None, "milestones": points}
    study = Config.read(config)
    milestones = [m for m in jobs.models(study)[0] if m.pretrain == "ve" and m.seed == 1]
    assert [m.kimg for m in milestones] == [0, *points]
    runs = [settings.train(study, m) for m in milestones]
    assert [run["first_kimg"] for run in runs[1:]] == [run["last_kimg"] for run in runs[:-1]]
    assert study.chain("ve") == [Milestone("ve", 0, kimg) for kimg in points]
    whole = Config.read(replicated(2))
    for one, other in itertools.product(runs[1:], [settings.train(whole, milestones[1])]):
        alike = {k: v for k, v in one.items() if k not in ("first_kimg", "last_kimg")}
        assert alike.items() <= other.items()
    with pytest.raises(ConfigError, match=r"found 6 .* its milestones 0, 12, 30, \.\.\., 54"):
        config["experiments"]["split"]["rows"][0]["shares"] = [10]
        Config.read(config)
