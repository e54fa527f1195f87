"""The settings of every verb, held to the config's blocks: those of every study pass unchanged, and
those written by hand are refused where a config would be."""

import copy
import json
from pathlib import Path

import pytest

from ect.cli.main import VERBS
from ect.config import load, verbs
from ect.config.config import Config
from ect.study import jobs, settings
from tests.helpers.configs import PICKLE
from tests.helpers.runs import PRETRAIN, TUNE, changed

ROOT = Path(__file__).parents[2]
EDM2 = ("s-1073741-0.075", "m-2147483-0.060", "l-1073741-0.040", "xl-0671088-0.040")
STUDIES = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))


def all_settings(study):
    """(verb, settings) of every job of a study that computes."""
    yield "prepare", study.dataset.resolved()
    if study.features.classifier:
        yield "train_classifier", settings.train_classifier(study)
    for model in [model for models in jobs.models(study) for model in models]:
        if getattr(model, "pretrain", None) not in study.given:
            yield "train", settings.train(study, model)
            yield "perfect_loss", settings.train(study, model)
    for name in study.averages:
        yield "reconstruct_average", settings.reconstruct_average(study, name)
    for name in study.samplers:
        for repeat in range(study.evaluation.repeats):
            yield "sample", settings.save_samples(study, name, repeat)
            yield "extract", settings.extract(study, name, repeat)
        yield "sample", settings.save_samples(study, name, 0, replicate=2)
    yield "extract", settings.extract(study)
    yield "summarize", settings.summarize(study)
    for cell in (None, *study.all_cells()):
        yield "evaluate", settings.evaluate(study, cell)
    yield "trace", settings.trace(study)
    yield "find_nearest", settings.find_nearest(study)
    if study.beside_published():
        yield "tabulate_paper", study.beside_published()
    if study.search:
        yield "search_steps", settings.search_steps(study)


@pytest.mark.parametrize("path", [None, *STUDIES], ids=["default", *(p.stem for p in STUDIES)])
def test_settings_of_every_job_of_every_study_pass_unchanged(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("imagenet", "cifar10-jpeg"):
        Path("datasets", place, "train", "cat").mkdir(parents=True)
    Path("photos").mkdir()
    Path("models").mkdir()
    for name in (
        "edm-cifar10-32x32-uncond-vp.pkl",
        "edm-imagenet-64x64-cond-adm.pkl",
        *(f"edm2-img64-{size}.pkl" for size in EDM2),
    ):
        Path("models", name).write_bytes(PICKLE.read_bytes())
    study, found = Config.read(load.read(ROOT / "config.yaml", *([path] if path else []))), set()
    for verb, each in all_settings(study):
        given = json.loads(json.dumps(each))
        before = copy.deepcopy(given)
        verbs.require(verb, given)
        assert given == before
        found.add(verb)
    assert {"prepare", "train", "sample", "extract", "evaluate", "trace"} <= found


def test_every_verb_that_takes_settings_has_a_block():
    takes = {f.__name__ for f, (_, arguments) in VERBS.items() if "settings" in arguments}
    assert takes == set(verbs.BLOCKS) | {"draw"}


SAMPLE = {
    "kind": "multistep", "options": {"times": [0.5]}, "images": 4, "batch": 2, "seed": 0,
    "labels": None,
}  # fmt: skip
SPACE = {"extractor": "classifier", "inception_mode": "clean", "kd_subsets": 1}
EVALUATE = {"features": SPACE, "cell": {"label": "mine"}}
DIGITS = {"source": "digits", "normalize": "unit", "held_out": 10, "split_seed": 0}
CLASSIFIER = {"channels": 4, "epochs": 1, "batch": 64, "lr": 1e-3}
SEARCH = {
    "features": SPACE, "metric": "fd", "steps": [2], "images": 20, "seed": 50, "evaluations": 3,
    "low": 0.02, "high": 40.0, "test_seed": 0, "test_images": 20, "batch": 10,
}  # fmt: skip
SEARCHED = {
    "path": "steps.json", "schedule": "a", "pretrain": "ve", "recipe": "ect", "kimg": 1,
    "tune_kimg": 1, "seed": 0,
}  # fmt: skip
OURS = {"method": "ECT", "budget_mimg": None, "start_mimg": 0.0, "metrics": ["m.json"]}
SHOWN = {"question": "?", "kind": "split", "table": "t.csv", "figure": "f.png"}
PAGE = {
    "study": "a", "config": "0", "samplers": {}, "experiments": {"b": SHOWN}, "figures": {},
    "tables": {},
}  # fmt: skip
KARRAS = {"kind": "karras", "options": {"low": 0.1, "high": 20.0}}
GOOD = {
    "prepare": DIGITS,
    "train_classifier": CLASSIFIER,
    "train": PRETRAIN,
    "perfect_loss": TUNE,
    "sample": SAMPLE,
    "extract": {"features": SPACE, "sampling": SAMPLE},
    "evaluate": EVALUATE,
    "trace": {"features": SPACE, "samplers": {"2 steps": SAMPLE}},
    "search_steps": SEARCH,
    "tabulate_steps": {"models": [SEARCHED]},
    "tabulate_paper": {"dataset": "cifar10", "cells": [OURS]},
    "write_page": PAGE,
}


@pytest.mark.parametrize("verb", GOOD)
def test_settings_written_by_hand_pass(verb):
    verbs.require(verb, GOOD[verb])


EULER = {"kind": "euler", "options": {"steps": 0}}
MISTAKES = [
    ("prepare", {"held_out": -2}, "held_out: found -2; allowed: a whole number greater"),
    ("prepare", {"held_uot": 5}, "held_uot: unknown key; allowed: source, .*mean 'held_out'"),
    ("prepare", {"max_images": 0}, "max_images: found 0"),
    ("prepare", {"split_seed": -1}, "split_seed: found -1"),
    ("prepare", {"normalize": "units"}, "normalize: found 'units'; .*mean 'unit'"),
    ("train_classifier", {"epochs": 0}, "epochs: found 0"),
    ("train_classifier", {"lr": -1e-3}, "lr: found -0.001; allowed: greater than 0"),
    ("train_classifier", {"batch": 2.5}, "batch: found 2.5"),
    ("train", {"last_kimg": 0, "first_kimg": 2}, "first_kimg: found 2; allowed: < last_kimg = 0"),
    ("train", {"first_kimg": 1}, "first_kimg: found 1; allowed: < last_kimg = 1"),
    ("train", {"snapshots": 999}, "snapshots: found 999 with 10 steps; allowed: at most 10"),
    ("train", {"first_kimg": -1}, "first_kimg: found -1"),
    ("train", {"seed": -3}, "seed: found -3"),
    ("train", {"snapshots": -1}, "snapshots: found -1"),
    ("train", {"sd": 0.0}, "sd: found 0.0; allowed: greater than or equal to 0.001"),
    ("train", {"sd": 1e-300}, "sd: found 1e-300"),
    ("train", {"sd": 1e30}, "sd: found 1e.30; allowed: less than or equal to 1000"),
    ("train", {"seed": 10**30}, "seed: found 10+; allowed: less than"),
    ("train", {"last_kimg": 10**12}, "last_kimg: found 10+; allowed: less than"),
    ("train", {"recipe__prior__options__std": 1e-300}, "recipe.prior: options: std: found 1e-300"),
    ("train", {"recipe__prior__options__std": 50.0}, "recipe.prior: options: std: found 50.0"),
    ("train", {"recipe__prior__options__mean": -400.0}, "recipe.prior: options: mean: found -400"),
    ("train", {"recipe__prior": changed(KARRAS, options__low=1e-200)}, "recipe.prior: .*low: fo"),
    ("train", {"recipe__prior": changed(KARRAS, options__high=1e200)}, "recipe.prior: .*high: fo"),
    ("train", {"recipe__optimizer__lr": 1e300}, "recipe.optimizer.lr: found 1e.300"),
    ("perfect_loss", {"recipe__distance__c": 1e-300}, "recipe.distance: c is 1e-300; allowed: 0, "),
    ("perfect_loss", {"recipe__distance__c": 1e20}, "recipe.distance.c: found 1e.20"),
    ("perfect_loss", {"recipe__ema_halflife_kimg": 1e300}, "recipe.ema_halflife_kimg: found"),
    ("perfect_loss", {"recipe__ema_std": 1e-300}, "recipe.ema_std.0: found 1e-300"),
    ("train", {"sd": None}, "sd: found None"),
    ("train", {"network": None}, "network: found None"),
    ("train", {"network__channels": 6}, "network.channels: found 6"),
    ("train", {"network__width": 6}, "network.width: unknown key"),
    ("train", {"process": "noise"}, "process: found 'noise'"),
    ("train", {"parameterization": "noise", "process": "flow"}, "parameterization is 'noise'"),
    ("train", {"target": "huen"}, "target: found 'huen'; allowed: .*mean 'heun'"),
    ("train", {"recipe__batch": -3}, "recipe.batch: found -3"),
    ("train", {"recipe__batch": "64"}, "recipe.batch: found '64'; allowed: a valid integer"),
    ("train", {"recipe__microbatch": 200}, "recipe: microbatch is 200; allowed: at most batch"),
    ("train", {"recipe__prior__options__std": -1.5}, "recipe.prior: options: std: found -1.5"),
    ("train", {"recipe__prior__options__sdt": 1.5}, "recipe.prior: options: sdt: unknown key"),
    ("train", {"recipe__prior": {"kind": "karras", "options": {"std": 1.0}}}, "recipe.prior: op"),
    ("train", {"recipe__prior": KARRAS | {"low": 1.0}}, "recipe.prior.low: unknown key"),
    ("train", {"recipe__distance__c": -0.1}, "recipe.distance.c: found -0.1"),
    ("train", {"recipe__distance__c": 0.1}, "recipe.distance: c is 0.1 with kind 'squared'"),
    ("train", {"recipe__ema_halflife_kimg": -0.3}, "recipe.ema_halflife_kimg: found -0.3"),
    ("train", {"recipe__ema_halflife_kimg": None}, "recipe: ema_std is None, ema_halflife"),
    ("train", {"recipe__ema_std": 0.05}, "recipe: ema_std is .0.05., ema_halflife_kimg 0.3"),
    ("train", {"recipe__dropout": 1.0}, "recipe.dropout: found 1.0"),
    ("train", {"recipe__kernels": "nativ"}, "recipe.kernels: found 'nativ'; .*mean 'native'"),
    ("train", {"recipe__optimizer__lr": 0.0}, "recipe.optimizer.lr: found 0.0"),
    ("train", {"recipe__optimizer__betas": [0.9]}, "recipe.optimizer.betas: found"),
    ("train", {"recipe__optimizer__decay": 0.5}, "recipe.optimizer.decay: found 0.5"),
    ("train", {"schedule__map": "sigmoidal"}, "schedule.map: found 'sigmoidal'"),
    ("train", {"schedule__options": {"q": 2.0}}, "schedule: options: unknown option 'q' of zero"),
    ("train", {"schedule__clock": "tim"}, "schedule.clock: found 'tim'"),
    ("perfect_loss", {"schedule__options__q": 0.5}, "schedule: options: q is 0.5; allowed: > 1"),
    ("perfect_loss", {"schedule__options__stages": 0}, "schedule: options: stages is 0"),
    ("sample", {"batch": -3}, "batch: found -3; allowed: greater than or equal to 1"),
    ("sample", {"images": 0}, "images: found 0"),
    ("sample", {"seed": 1.5}, "seed: found 1.5"),
    ("sample", {"btach": 4}, "btach: unknown key; .*mean 'batch'"),
    ("sample", {"labels": [-1]}, "labels.0: found -1"),
    ("sample", {"precision": "fp8"}, "precision: found 'fp8'"),
    ("sample", {"options__times": [0.5, 1.0]}, "options: times is .*allowed: decreasing"),
    ("sample", {"options__times": [200.0]}, "options: times.0: found 200.*80"),
    ("sample", {"options__sigma_min": 1}, "options: sigma_min is 1.*allowed: < 0.5"),
    ("sample", {"options__time": []}, "options: unknown key 'time'; allowed"),
    ("sample", {"options__times": None}, "options: times: found None; allowed: a value, or no"),
    ("sample", {"options__steps": None}, "options: steps: found None"),
    ("sample", {"options__kind": "euler"}, "options: kind: unknown key"),
    ("sample", {"options__labels": [0]}, "options: labels: unknown key"),
    ("train", {"schedule__options": {"map": "zero"}}, "schedule: options: map: unknown key"),
    ("train", {"recipe__prior__options__kind": "karras"}, "recipe.prior: options: kind: unknown"),
    ("sample", EULER, "options: steps: found 0"),
    ("sample", EULER | {"options": {}}, "options: steps is None"),
    ("sample", {"kind": "hein"}, "kind: found 'hein'; .*mean 'heun'"),
    ("extract", {"sampling__batch": -1}, "sampling.batch: found -1"),
    ("extract", {"features__extractor": "inceptoin"}, "features.extractor: .*mean 'inception'"),
    ("extract", {"features__inception_mode": "tf"}, "features.inception_mode: found 'tf'"),
    ("evaluate", {"metrics": ["fid"]}, "metrics.0: found 'fid'"),
    ("evaluate", {"metrics": []}, "metrics: found .*; allowed: at least 1"),
    ("evaluate", {"metrics": ["fd", "fd"]}, "metrics: found 'fd' more than once"),
    ("evaluate", {"cell__fd": -5}, "cell.fd: unknown key"),
    ("evaluate", {"fd": -5}, "fd: unknown key"),
    ("evaluate", {"features__kd_subsets": 0}, "features.kd_subsets: found 0"),
    ("trace", {"samplers": {}}, "samplers: found {}; allowed: at least 1"),
    ("trace", {"samplers__2 steps__seed": -1}, "samplers.2 steps.seed: found -1"),
    ("search_steps", {"low": 50.0}, "low is 50.0; allowed: < high = 40.0"),
    ("search_steps", {"steps": [1]}, "steps.0: found 1"),
    ("search_steps", {"test_images": 3}, "test_images: found 3"),
    ("search_steps", {"metric": "fid"}, "metric: found 'fid'"),
    ("search_steps", {"seed": 0, "test_seed": 0}, "test_seed: found 0, whose .* meet the seeds"),
    ("search_steps", {"test_images": 10**9}, "test_images: found 10+; allowed: less than"),
    ("search_steps", {"batch": 10**9}, "batch: found 10+; allowed: less than or equal to 100000"),
    ("sample", {"batch": 10**9}, "batch: found 10+; allowed: less than or equal to 100000"),
    ("sample", {"images": 10**9}, "images: found 10+; allowed: less than"),
    ("train", {"recipe__optimizer__lr": 1e-46}, "recipe.optimizer.lr: found 1e-46, which moves"),
    ("perfect_loss", {"recipe__optimizer__warmup_kimg": 1e9}, ".*warmup_kimg: found 1e.09"),
    ("train_classifier", {"lr": 1e-300}, "lr: found 1e-300, which moves no weight"),
    ("tabulate_steps", {"models": 5}, "models: found 5; allowed: a valid list"),
    ("tabulate_steps", {"models": []}, "models: found .*; allowed: at least 1"),
    ("tabulate_steps", {"models": [SEARCHED | {"path": 5}]}, "models.0.path: found 5"),
    ("tabulate_paper", {"out": "x"}, "out: unknown key; allowed: dataset, cells"),
    ("tabulate_paper", {"cells": [OURS | {"metrics": 5}]}, "cells.0.metrics: found 5"),
    ("write_page", {"template": "x"}, "template: unknown key"),
    ("write_page", {"experiments__b__kind": "x"}, "experiments.b.kind: found 'x'"),
    ("write_page", {"figures": {"a": "/dev/zero"}}, "figures.a: found '/dev/zero', a device"),
    ("write_page", {"planned": [{}]}, "planned.0"),
    ("write_page", {"figures": 5}, "figures: found 5; allowed: a mapping"),
    ("evaluate", {"cell__kimg": -5}, "cell.kimg: found -5"),
    ("evaluate", {"metrics": ["fd", "inception_score"], "features__extractor": "dinov2"},
     "metrics: found 'inception_score' with features.extractor 'dinov2'; allowed: with 'incep"),
    ("write_page", {"config": " "}, "config: found ' '; allowed: a text that can be seen"),
    ("evaluate", {"cell__tune_kimg": -3}, "cell.tune_kimg: found -3"),
    ("evaluate", {"features__kd_subsets": 10**9}, "features.kd_subsets: found 10+; allowed: less"),
]  # fmt: skip


@pytest.mark.parametrize("verb, changes, wanted", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_in_settings_written_by_hand_is_one_line(verb, changes, wanted):
    with pytest.raises(ValueError, match=f"^settings: {wanted}") as told:
        verbs.require(verb, changed(GOOD[verb], **changes))
    assert len(str(told.value).splitlines()) == 1


def test_a_key_that_is_missing_is_told_and_how_many_more():
    with pytest.raises(ValueError, match=r"^settings: recipe: missing; .*\(and 6 more\)$"):
        verbs.require("train", {})


def test_parts_of_plugins_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from ect.plugins import sampler, weight\n\n"
        "@sampler\ndef walk(f, process, eps, hops: int = 3):\n    return eps[0]\n\n"
        "@weight\ndef flat(s, r, sd):\n    return s / s\n"
    )
    named = {"plugins": {"mine.py": "0" * 64}}
    walk = changed(SAMPLE | named, kind="walk", options={"hops": 2})
    verbs.require("sample", walk)
    verbs.require("train", changed(PRETRAIN | named, recipe__weight="flat"))
    with pytest.raises(ValueError, match=r"options: unknown option 'hop' of walk; .*mean 'hops'"):
        verbs.require("sample", changed(walk, options={"hop": 2}))
    with pytest.raises(ValueError, match=r"recipe.weight: found 'flatt'; .*mean 'flat'"):
        verbs.require("train", changed(PRETRAIN | named, recipe__weight="flatt"))
    with pytest.raises(ValueError, match=r"^plugins: gone\.py: No such file"):
        verbs.require("sample", walk | {"plugins": {"gone.py": "0" * 64}})
