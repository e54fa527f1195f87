"""Tuning in stages (TCM, CMT) as a study: a run of its rules, its jobs, mistakes in its config."""

import copy
import json
import re
from collections import Counter

import pytest
import yaml

from ect.config import load
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config, ConfigError
from ect.runtime import checkpoint
from ect.study import settings
from ect.study.jobs import jobs
from tests.helpers.workflow import ROOT, SMOKE, copy_workflow, snakemake

FIRST = {"pretrain": "ve", "kimg": 1, "tune": "ect", "tune_kimg": 1, "schedule": "sigmoid"}
STUDENT = {"kind": "student", "df": 0.01, "mean": 0.0, "std": 0.2, "low": 1.0}
ROW = {"pretrain": ["first"], "kimg": [0], "tune": "second", "tune_kimg": 1}
ROWS = [ROW | {"schedules": ["sigmoid"], "samplers": ["one_step"]}]
ROWS += [ROWS[0] | {"pretrain": ["middle"], "tune": "ect"}]
MID = FIRST | {"tune": "mid", "schedule": "zero"}
SOLVED = {"solved": {"pretrain": "ve", "kimg": 1, "steps": 4, "count": 50, "batch": 50}}
TWO = {
    "schedules": {"grid": {"map": "ict"}, "zero": {"map": "zero"}},
    "trajectories": SOLVED,
    "tuned": {"first": FIRST, "middle": MID},
    "tune": {
        "second": {"like": "ect", "prior": STUDENT, "truncate": {"boundary": 0.5}},
        "mid": {"like": "ect", "trajectories": "solved"},
    },
    "experiments": {
        "methods": {"rows": ROWS},
        **{name: None for name in ("schedules", "split", "solvers")},
    },
    "search": None,
}
SECOND = Tuned(Milestone("first", 0, 0), "sigmoid", "second", 1, 0)


@pytest.fixture
def study(tmp_path):
    copy_workflow(tmp_path)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(TWO))
    return tmp_path


@pytest.mark.pipeline
def test_the_second_stage_starts_from_the_first_and_runs_as_its_jobs_say(study, monkeypatch):
    monkeypatch.chdir(study)
    config = Config.read(load.read("config.yaml", SMOKE, "two.yaml"))
    planned = snakemake(study, "-n", "--configfile", SMOKE, "two.yaml").stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", planned, re.MULTILINE))
    assert counts.pop("study") == "1" and counts.pop("total") == str(len(jobs(config)) + 1)
    assert {rule: int(n) for rule, n in counts.items()} == Counter(j.rule for j in jobs(config))
    target = f"{config.root}/{SECOND.folder}/one_step/metrics.json"
    middle = f"{config.root}/{config.origin('middle').folder}"
    words = ("--configfile", SMOKE, "two.yaml")
    done = snakemake(study, target, f"{middle}/run.json", *words, new=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, adopted = (
        checkpoint.load(study / config.root / folder / "model.safetensors")
        for folder in (config.origin("first").folder, "pretrain/first/s0/k0")
    )
    assert all((first[0][key] == adopted[0][key]).all() for key in first[0])
    assert first[1]["sd"] == adopted[1]["sd"]
    record = json.loads((study / config.root / SECOND.folder / "run.json").read_text())
    assert record["settings"]["recipe"]["truncate"]["boundary"] == 0.5
    cell = json.loads((study / target).read_text())["cell"]
    assert (cell["kimg"], cell["tune_kimg"], cell["process"]) == (2, 1, "ve")
    record = json.loads((study / middle / "run.json").read_text())
    read = [file.rpartition("/")[2] for file in record["inputs"]]
    assert read == ["dataset.safetensors", "model.safetensors", "trajectories.safetensors"]
    adopting = [job.path for job in jobs(config) if job.rule == "adopt_tuned"]
    assert adopting == [f"pretrain/{name}/s0/k0/model.safetensors" for name in ("first", "middle")]


MISTAKES = {
    "name": ("tuned", {"ve": FIRST}, "tuned.ve: also a name of another start"),
    "of a tuned one": (
        "tuned",
        {"first": FIRST, "other": FIRST | {"pretrain": "first", "kimg": 0}},
        "tuned.other.pretrain: found 'first', a tuned model; allowed: flow, ve",
    ),
    "milestone": ("tuned/first/kimg", 7, "tuned.first.kimg: found 7"),
    "recipe": ("tuned/first/tune", "etc", "tuned.first.tune: found 'etc'"),
    "prior": (
        "tune/second/prior", STUDENT | {"low": 0.5}, "tune.second: prior.low is 0.5 with truncate",
    ),
    "df": ("tune/second/prior", {**STUDENT, "df": None}, "{kind: student} with df, mean, std, low"),
    "target": ("tune/second/target", "heun", "target is 'heun' with truncate; allowed: own"),
    "boundary": ("tune/second/truncate", {"boundary": 1.0}, "truncate.boundary: found 1.0"),
    "grid": (
        "experiments/methods/rows", [ROWS[0] | {"schedules": ["grid"]}],
        "schedule 'grid' (ict) with recipe 'second', found truncate; allowed: a map without a grid",
    ),
    "start": (
        "experiments/methods/rows",
        [ROWS[0] | {"pretrain": ["ve"], "kimg": [1]}],
        "start 've' with recipe 'second', whose truncate needs a tuned start; allowed: first",
    ),
    "trajectories": (
        "tune/mid/trajectories", "lost", "tune.mid.trajectories: found 'lost'; allowed: solved",
    ),
    "random": (
        "trajectories/solved/kimg", 0, "trajectories.solved.kimg: found 0, a random start; allowed",
    ),
    "no milestone": ("trajectories/solved/kimg", 7, "trajectories.solved.kimg: found 7"),
    "solved of a tuned one": (
        "trajectories/solved/pretrain", "first", "trajectories.solved.pretrain: found 'first'",
    ),
    "map": (
        "tuned/middle/schedule", "sigmoid",
        "with recipe 'mid', found trajectories; allowed: the map zero",
    ),
    "augmented": (
        "tune/mid/augment", {"p": 0.1}, "with recipe 'mid', found augment; allowed: no augment",
    ),
    "loss page": (
        "figures",
        {"loss": {"tune": "mid", "schedule": "zero"}, "samples": None},
        "figures.loss.tune: found 'mid'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("path, value, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_second_stage_is_named(path, value, words, tmp_path):
    overlay = copy.deepcopy(TWO)
    *blocks, key = path.split("/")
    place = overlay
    for block in blocks:
        place = place.setdefault(block, {})
    place[key] = value
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(overlay))
    with pytest.raises(ConfigError) as caught:
        Config.read(load.read(ROOT / "config.yaml", ROOT / SMOKE, tmp_path / "two.yaml"))
    assert words in str(caught.value)


def test_settings_without_a_second_stage_do_not_name_it():
    study = Config.read(load.read(ROOT / "config.yaml", ROOT / SMOKE))
    for cell in study.all_cells():
        assert "truncate" not in settings.train(study, cell.model)["recipe"]
