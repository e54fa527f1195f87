"""Keys without an effect where they stand, and runs that no row names, are told by the config."""

import copy
import re

import pytest

from ect.config import load, verbs
from ect.config.config import Config, ConfigError
from ect.study import cost
from ect.study import settings as study_settings
from tests.config.test_fits import PLAIN, laid
from tests.helpers.configs import ROOT, SEARCH

FIRST = {"pretrain": "ve", "kimg": 30, "tune": "ect", "schedule": "sigmoid", "tune_kimg": 6}
SECOND = {
    "prior": {"kind": "student", "df": 1.0, "mean": 0.0, "std": 1.0, "low": 1.0},
    "distance": {"kind": "huber", "c": 0.03}, "weight": "edm", "batch": 64, "ema_std": 0.1,
    "optimizer": {"name": "adam", "lr": 1e-3}, "truncate": {},
}  # fmt: skip
ROW = {"pretrain": ["first"], "kimg": [0], "tune": "second", "tune_kimg": 6}
ROW |= {"schedules": ["sigmoid"], "samplers": ["one_step"]}
STAGES = {
    "tuned": {"first": FIRST}, "tune/second": SECOND, "figures": None,
    "experiments": {"m": {"question": "?", "kind": "methods", "rows": [ROW]}},
}  # fmt: skip
IMPORT = {"imp": {"format": "edm", "file": "a.pkl"}}
IMPORTED = STAGES | {"init": IMPORT, "dataset/normalize": "unit"}
IMPORTED |= {"tuned": {"first": FIRST | {"pretrain": "imp", "kimg": 0}}}
FM = {"kind": "flow_map", "times": [1.0], "label": "fm"}
ONE_STEP = {"kind": "heun", "steps": 2, "label": "1  step"}
FLOWS = {"question": "?", "kind": "methods", "rows": [PLAIN | {"samplers": ["fm"]}]}
MID = {
    "trajectories": {"solved": {"pretrain": "ve", "kimg": 30, "count": 100}},
    "tune/mid": {"like": "ect", "trajectories": "solved"},
}
CHAIN = {f"a{n}": {"like": f"a{n + 1}", "label": str(n)} for n in range(60)}

WRONG = {
    "first stage that never moves": (
        STAGES | {"tune/ect/optimizer/warmup_kimg": 1e9}, "tune.ect.optimizer.warmup_kimg",
    ),
    "first stage without a gap": (STAGES | {"schedules/sigmoid/q": 1e9}, "schedules.sigmoid"),
    "first stage without dropout": (
        STAGES | {"tune/ect/dropout": 0.1, "tune/ect/dropout_at": 1}, "tune.ect.dropout_at",
    ),
    "first stage, augmented": (STAGES | {"tune/ect/augment": {"p": 0.1}}, "told 0"),
    "never augmented": (
        {"networks/small/augment_labels": 9, "tune/ect/augment": {"p": 0.1}}, "told 0",
    ),
    "range of a first stage": (IMPORTED | {"dataset/normalize": "standard"}, "start 'imp'"),
    "name of a first stage": (STAGES | {"tuned": {"ve": FIRST}}, "tuned.ve: also a name"),
    "no image at the boundary": (STAGES | {"tune/second/batch": 1}, "no image of a batch of 1"),
    "every image at it": (
        STAGES | {"tune/second/batch": 8, "tune/second/truncate": {"boundary": 0.99}}, "every",
    ),
    "no level with churn": (
        {"samplers/heun/churn": 9.0, "samplers/heun/churn_max": 1e-4}, "churn_max is 0.0001",
    ),
    "churn between levels": (
        {"samplers/heun/churn": 9.0, "samplers/heun/churn_min": 79.0}
        | {"samplers/heun/churn_max": 79.5}, "none of the 18 noise levels",
    ),
    "gamma of one step": ({"samplers/fm": FM | {"times": [], "gamma": 0.5}}, "gamma is 0.5"),
    "untrained flow map": (
        {"networks/small/span": "end", "samplers/fm": FM}
        | {"experiments/x": FLOWS}, "is a flow_map, with no schedule",
    ),
    "flow map in the grid": ({"samplers/fm": FM, "figures/solver": "fm"}, "figures.solver"),
    "shared dropout": ({"tune/ect/shared_dropout": False}, "with dropout 0"),
    "lr_final": ({"tune/ect/optimizer/lr_final": 0.5, "tune/ect/optimizer/decay_from": 1.0},
                 "never falls"),
    "up_to_kimg": ({"experiments/methods/up_to_kimg": 9}, "no rows have total_kimg"),
    "attention twice": ({"networks/small/attention": [4, 4]}, "found 4 more than once"),
    "levels of no sampler": ({"tune/ect/prior": {"kind": "karras", "low": 90.0, "high": 1e3}},
                             "where no sampler is"),
    "c": ({"schedules/c": {"map": "continuous", "c": 1e300}}, "schedules.c: c is 1e+300"),
    "p": ({"schedules/c": {"map": "psd", "p": 1000}}, "schedules.c: p is 1000"),
    "high": ({"schedules/c": {"map": "ct", "high": 1e300}}, "schedules.c: high is 1e+300"),
    "invisible": ({"samplers/heun/label": "\u200b"}, "a text that can be seen"),
    "span": ({"networks/small/span": "End"}, "allowed: true, false or end"),
    "home": ({"dataset": {"source": "images", "path": "~/no", "held_out": 9}}, "written out"),
    "lacking": ({"figures/samples": {}}, "pretrain: missing, as are kimg"),
    "like": ({"figures": {"samples": {"like": "b"}}}, "`like` stands in blocks of networks"),
    "weights of another extractor": (
        {"features/inception_path": "no"}, "inception_path: found 'no' with the extractor 'class",
    ),
    "mode of another extractor": ({"features/inception_mode": "clean"}, "with 'inception' only"),
    "file of another extractor": ({"features/dinov2_path": "no.pt"}, "with 'dinov2' only"),
    "augmentation of nobody": ({"networks/small/augment_labels": 9}, "which no pretraining tells"),
    "a denormal": ({"samplers/heun/churn": 1e-320}, "found 1e-320, which fp32 rounds to 0"),
    "noise below fp32": ({"samplers/heun/churn": 1e-14}, "churn is 1e-14, whose noise fp32"),
    "an address": (
        {"init": {"a": {"format": "edm", "file": "https://a.b/c.pkl"}}}, "not an address",
    ),
    "width of a figure that is null": (
        {"figures/loss": None, "figures/widths_in": {"loss": 5.0}}, "'loss', which is not drawn",
    ),
    "width of a figure that nobody asks for": (
        {"figures/widths_in": {"nearest": 5.0}}, "as figures.nearest is null; allowed: methods",
    ),
    "the solver's row twice": (
        {"figures/solver": "one_step"}, "figures.solver: found 'one_step', labelled as 'one_step'",
    ),
    "two rows of one label": (
        {"figures/solver": "mine", "samplers/mine": ONE_STEP},
        "figures.solver: found 'mine', labelled as 'one_step', which the grid",
    ),
    "a search without room": (
        {"search": SEARCH | {"low": 1.0, "high": 1.9}}, "high is 1.9 with low 1.0, which leaves",
    ),
    "a prior of trajectories": (MID | {"tune/mid/prior": {"mean": 0.0, "std": 1.0}},
                                "tune.mid.prior: found one with trajectories"),
    "its prior again": (
        MID | {"tune/more": {"like": "mid", "prior": {"mean": 1.0, "std": 1.0}}},
        "tune.more.prior: found one with trajectories",
    ),
    "a key of another source": (
        {"dataset": {"source": "parquet", "path": "p", "classes": "folders"}},
        "classes is set for 'parquet'; allowed: normalize, held_out, split_seed, max_images, path,"
        " label, resolution, resize, channels, on_error; `classes: null` takes back what a file",
    ),
    "a chain of like": ({"samplers": CHAIN | {"a60": {"kind": "multistep", "label": "z"}}},
                        "at most 50"),
}  # fmt: skip


@pytest.mark.parametrize("changes, words", WRONG.values(), ids=WRONG)
def test_it_is_one_line(changes, words):
    with pytest.raises(ConfigError) as caught:
        Config.read(laid(copy.deepcopy(changes)))
    assert words in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_a_recipe_on_trajectories_has_the_prior_of_another():
    more = {"tune/more": {"like": "mid", "batch": 32}}
    study = Config.read(laid(copy.deepcopy(MID | more)))
    assert study.tune["more"].prior == study.tune["ect"].prior


@pytest.mark.parametrize("stages", [STAGES, IMPORTED])
def test_two_stages_are_read(stages):
    models = Config.read(laid(copy.deepcopy(stages))).all_tuned()
    assert {model.recipe for model in models} == {"ect", "second"}


def by_hand(**recipe):
    study = Config.read(laid(copy.deepcopy(STAGES)))
    settings = study_settings.train(study, study.all_tuned()[-1])
    return settings | {"recipe": settings["recipe"] | recipe}


TRAIN = {
    "joint": (by_hand(joint={"kind": "sorted", "options": {}}), "recipe: found a joint prior with"),
    "derivative": (by_hand(derivative="difference"), "recipe: found derivative .difference. with"),
    "adaptive": (by_hand(adaptive=True), "recipe: found adaptive with"),
    "truncate": (by_hand(truncate={"at": 2.0}), "prior.low is None with truncate"),
}


@pytest.mark.parametrize("settings, words", TRAIN.values(), ids=TRAIN)
def test_settings_by_hand_are_held_to_the_same(settings, words):
    verbs.require("train", by_hand())
    with pytest.raises(ValueError, match=words):
        verbs.require("train", settings)


def test_a_plan_takes_the_shape_that_a_look_found(tmp_path, monkeypatch):
    """Of own images without `resolution` the config alone knows no size."""
    monkeypatch.chdir(tmp_path)
    images = {"source": "images", "path": "photos", "held_out": 9}
    study = Config.read(laid({"dataset": images, "features": {"extractor": "inception"}}))
    assert cost.plan(study, count=lambda *_: 10)["disk_bytes"]["in_all"] is None
    assert cost.plan(study, count=lambda *_: 10, shape=(3, 8, 8))["disk_bytes"]["in_all"] > 0


@pytest.mark.parametrize("between", ["", "evaluation: {images: 9}"])
@pytest.mark.parametrize(
    "text, found",
    [
        ("\ndataset: {held_out: {}}", "line 2: dataset.held_out: found {}, which leaves 360;"),
        ("samplers: {two_step: {times: {}}}", "line 1: samplers.two_step.times: found {}, which"),
    ],
)
def test_an_empty_mapping_over_a_value(tmp_path, text, found, between):
    """Snakemake leaves the value."""
    files = [ROOT / "config.yaml", tmp_path / "between.yaml", tmp_path / "study.yaml"]
    files[1].write_text(between or "{}")
    files[2].write_text(text)
    for laid_over in (load.read, lambda *files: load.places_of(files, {})):
        with pytest.raises(ValueError, match=re.escape(found)):
            laid_over(*map(str, files))
