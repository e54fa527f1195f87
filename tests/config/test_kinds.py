"""Nested seeds, and maps whose last gap is known: what rows ask for, and what they may not."""

import copy
import itertools

import pytest

from ect.config import gaps, load
from ect.config.config import Config, ConfigError
from ect.config.schedule import Schedule
from ect.config.training import Prior
from ect.schedule import SCHEDULES
from ect.study import jobs, settings
from tests.helpers.configs import DEFAULT, PICKLE, ROOT, changed

ROW = {
    "pretrain": ["ve"], "kimg": [6], "tune": "ect", "tune_kimg": 6, "schedules": ["sigmoid"],
    "pretrainings": 3, "tunings": 2, "samplers": ["one_step"],
}  # fmt: skip


def nested(kind="noise", repeats=2, **row):
    """The default config, whose split is of nested seeds."""
    rows = {k: v for k, v in (ROW | row).items() if v is not None}
    block = {"question": "?", "kind": kind, "rows": [rows]}
    config = changed("experiments/split", block)
    config["evaluation"]["repeats"] = repeats
    return config


@pytest.mark.parametrize("first", [0, 5])
def test_no_two_models_share_a_seed_of_tuning_or_of_an_image(first):
    config = nested()
    config["pretrain"]["ve"]["seed"] = first
    study = Config.read(config)
    cells = study.cells("split")
    starts = [cell.model.start.seed - first for cell in cells]
    assert starts == [0, 0, 1, 1, 2, 2]
    assert len({cell.model.seed for cell in cells}) == len({c.folder for c in cells}) == 6
    seeds = [
        settings.sample(study, "one_step", repeat, cell.replicate)["seed"] + image
        for cell, repeat in itertools.product(cells, range(2))
        for image in (0, study.evaluation.images - 1)
    ]
    assert len(set(seeds)) == len(seeds)
    facts = [settings.facts(study, cell) for cell in cells]
    assert [f.get("pretraining", f.get("replicate", 0)) for f in facts] == starts
    milestones, tuned = jobs.models(study)
    assert len(tuned) >= 6 and {m.seed for m in milestones if m.pretrain == "ve"} >= {
        first, first + 1, first + 2,
    }  # fmt: skip


def test_the_first_model_is_that_of_a_row_with_one_seed():
    study, plain = Config.read(nested()), Config.read(nested("methods", pretrainings=None,
                                                              tunings=None))  # fmt: skip
    (cell,) = plain.cells("split")
    first = study.cells("split")[0]
    assert first == cell and settings.facts(study, first) == settings.facts(plain, cell)


def test_rows_without_the_keys_are_written_as_before():
    dumped = Config.read(DEFAULT).model_dump()["experiments"]["split"]["rows"][0]
    assert not {"pretrainings", "tunings"} & set(dumped)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "split"}, r"split: rows.0 has pretrainings and tunings; allowed: with the kind"),
        ({"pretrainings": None, "tunings": None}, r"rows.0 has no pretrainings and tunings"),
        ({"tunings": None}, r"found one of pretrainings and tunings; allowed: both"),
        ({"seeds": [0, 1]}, r"found seeds and pretrainings; allowed: one"),
        ({"replicates": 3}, r"found replicates and pretrainings; allowed: one"),
        ({"pretrainings": 1}, r"pretrainings: found 1"),
        ({"repeats": 1}, r"evaluation\.repeats: found 1 with experiments\.split of kind 'noise'"),
        ({"tune": None, "tune_kimg": None, "schedules": None}, r"found tunings without tune"),
        ({"tunings": 900, "pretrainings": 900}, r"found 16\d+ sets of images up to here"),
    ],
)
def test_mistakes_of_nested_seeds_are_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        Config.read(nested(**changes))


def test_one_imported_model_has_no_pretraining_seeds():
    config = nested(pretrain=["edm"], kimg=[0])
    config["init"] = {"edm": {"format": "edm", "file": str(PICKLE)}}
    config["dataset"] |= {"normalize": "unit"}
    with pytest.raises(ConfigError, match=r"rows\.0\.pretrain: found 'edm', which is one model"):
        Config.read(config)


def ended(schedules, **blocks):
    config = nested("ends", 1, pretrainings=None, tunings=None, replicates=3, schedules=schedules)
    config["schedules"] |= blocks
    return config


@pytest.mark.parametrize(
    "schedules, blocks, message",
    [
        (
            ["c"],
            {"c": {"map": "sigmoid", "clock": "time"}},
            "'c' with clock 'time'; allowed: noise",
        ),
        (["z"], {"z": {"map": "zero"}}, "'z', whose map zero has no known last gap"),
    ],
)
def test_ends_are_of_maps_with_a_last_gap(schedules, blocks, message):
    with pytest.raises(ConfigError, match=message):
        Config.read(ended(schedules, **blocks))


def test_ends_are_of_one_prior():
    config = ended(["sigmoid"])
    row = copy.deepcopy(config["experiments"]["split"]["rows"][0]) | {"tune": "ect_slope"}
    config["experiments"]["split"]["rows"].append(row)
    with pytest.raises(ConfigError, match="found recipes ect, ect_slope, whose priors have other"):
        Config.read(config)


def test_a_last_gap_is_that_of_the_last_step():
    """By hand: n(1) = 1 + 8 / (1 + e), at q^-8 or 1 / q; `ct` at s = 80, the end of its grid."""
    n = 1 + 8 / (1 + 2.718281828459045)
    for name, gap in (("sigmoid", n), ("smooth", n), ("fixed", n), ("constant", 1)):
        assert gaps.last(Schedule(map=name), 1.0) == pytest.approx(gap / 256, rel=1e-4)
    points = 151  # of the last stage
    below = (
        0.002 ** (1 / 7) + (points - 2) / (points - 1) * (80 ** (1 / 7) - 0.002 ** (1 / 7))
    ) ** 7
    assert gaps.last(Schedule(map="ct"), 80.0) == pytest.approx(1 - below / 80, rel=1e-4)


@pytest.mark.parametrize(
    "prior, level", [({"mean": 0.0, "std": 1.6}, 1.0), ({"mean": -0.4, "std": 1.6}, 0.67032)]
)
def test_the_median_of_a_prior(prior, level):
    assert gaps.median(Prior(**prior).resolved()) == pytest.approx(level, rel=1e-5)


MATCHED = ["constant", "sigmoid", "fixed", "smooth", "logsnr", "power", "piecewise"]


@pytest.mark.parametrize("name", MATCHED)
@pytest.mark.parametrize("gap", [0.05, 1 / 256, 1e-4])
@pytest.mark.parametrize("level", [0.3, 1.0, 5.0])
def test_the_matched_q_gives_the_last_gap(name, gap, level):
    q = gaps.matched(Schedule(map=name), gap, level)
    assert gaps.last(Schedule(map=name, q=q), level) == pytest.approx(gap, rel=1e-5)


def test_a_map_without_q_is_told():
    with pytest.raises(ValueError, match="map is ct, which has no q"):
        gaps.matched(Schedule(map="ct"), 0.01, 1.0)
    assert set(MATCHED) == {n for n in SCHEDULES if "q" in Schedule(map=n).options()}


def test_the_study_of_matched_ends_has_matched_ends():
    """Each gap of the default study's maps is had by a map that has the other one there."""
    file = ROOT / "workflow" / "studies" / "matched-ends.yaml"
    study = Config.read(load.read(ROOT / "config.yaml", file))
    found = settings.ends(study, "ends")
    level = gaps.median(study.tune["ect"].prior.resolved())
    wide, narrow = (
        gaps.last(Schedule(map="sigmoid"), level),
        gaps.last(Schedule(map="constant"), level),
    )
    wanted = {
        "sigmoid": wide, "smooth": wide, "fixed": wide, "constant_wide": wide,
        "constant": narrow, "sigmoid_narrow": narrow,
    }  # fmt: skip
    assert {name: one["gap"] for name, one in found.items()} == pytest.approx(wanted, rel=1e-4)
    assert [round(gap, 4) for gap in gaps.distinct(wanted.values())] == [0.0039, 0.0123]
    for name, gap in (("constant_wide", wide), ("sigmoid_narrow", narrow)):
        block = study.schedules[name]
        assert block.options()["q"] == pytest.approx(gaps.matched(block, gap, level), rel=1e-5)
    for name in ("sigmoid", "smooth", "fixed", "constant"):  # as they are in the default study
        assert study.schedules[name] == Config.read(DEFAULT).schedules[name]


TUNED = {k: v for k, v in ROW.items() if k not in ("pretrainings", "tunings")}
SHARE = {"pretrain": ["ve"], "total_kimg": 60, "shares": [50], "tune": "ect"}
SHARE |= {"schedules": ["sigmoid"], "samplers": ["one_step"]}
ONE = {
    "split": ([TUNED], "found one share of pretraining, 6 of 12 thousand images"),
    "split by shares": ([SHARE, SHARE | {"seeds": [1]}], "one share of pretraining, 30 of 60"),
    "scaling": ([SHARE | {"shares": [10, 50]}], "one total of 60 thousand images"),
    "ends": ([TUNED | {"seeds": [0, 1]}], "found the schedule 'sigmoid' alone"),
    "solvers": ([TUNED], "found tuned models alone with kind 'solvers'"),
}


@pytest.mark.parametrize("rows, words", ONE.values(), ids=ONE)
def test_what_is_compared_is_two_or_more(request, rows, words):
    kind = request.node.callspec.id.split()[0]
    block = {"question": "?", "kind": kind, "rows": rows}
    with pytest.raises(ConfigError, match=words) as caught:
        Config.read(changed("experiments/split", block))
    assert "\n" not in str(caught.value)
    if kind == "scaling":  # of two totals one may wait
        block = block | {"rows": [*rows, rows[0] | {"total_kimg": 120}], "up_to_kimg": 60}
        config = changed("experiments/split", block)
        config["pretrain"]["ve"]["kimg"] = 60
        Config.read(config)


def test_a_cell_that_two_rows_ask_for_is_one():
    """A table refuses the same file twice, after all jobs."""
    rows = [TUNED | {"seeds": [0, 1]}, TUNED | {"seeds": [1, 2]}]
    block = {"question": "?", "kind": "methods", "rows": rows}
    cells = Config.read(changed("experiments/split", block)).cells("split")
    assert [cell.model.seed for cell in cells] == [0, 1, 2]
