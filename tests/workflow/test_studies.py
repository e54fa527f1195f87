"""The studies of workflow/studies: each dry-runs with its exact jobs, which are those of its plan,
and its settings are the released ones where it says so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ect.config import load
from ect.config.config import Config
from ect.models.build import parameters
from ect.study import cost
from tests.helpers.workflow import copy_workflow

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "workflow" / "studies"
JOBS = {  # with `all`
    "cifar10-1hour": 37,
    "cifar10": 91,
    "cifar10-scratch": 87,
    "cifar10-flow": 74,
    "budget-split": 456,
    "cifar10-jpeg": 131,
    "imagenet64": 37,
    "smoke": 67,
    "baselines": 107,
    "ablations": 320,
    "precision": 175,
    "split-scaling": 1007,
}
each_study = pytest.mark.parametrize("name", JOBS)


def config(name):
    return load.read(ROOT / "config.yaml", STUDIES / f"{name}.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the workflow beside empty files of pretrained models, and of enough images."""
    folder = tmp_path_factory.mktemp("workflow")
    copy_workflow(folder)
    (folder / "models").mkdir()
    for name in ("edm-cifar10-32x32-uncond-vp.pkl", "edm-imagenet-64x64-cond-adm.pkl"):
        (folder / "models" / name).touch()
    for name, count in (("imagenet", 10_020), ("cifar10-jpeg", 5_100)):
        for label in ("cat", "dog"):
            (folder / "datasets" / name / "train" / label).mkdir(parents=True)
        for index in range(count):
            label = ("cat", "dog")[index % 2]
            (folder / "datasets" / name / "train" / label / f"{index}.png").touch()
    return folder


def both(*files):
    """({rule: jobs} of a dry run but `all`, {rule: jobs} of the plan)."""
    words = ("--cores", "all", "--dry-run", "--configfile", *files)
    command = [sys.executable, "-m", "snakemake", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    stats = text.split("Job stats:")[1].split("total")[0]
    counts = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}
    assert counts.pop("study") == 1
    planned = cost.plan(Config.read(load.read("config.yaml", *files)))["jobs"]
    return counts, {rule: jobs["to_do"] for rule, jobs in planned.items()}


@pytest.mark.pipeline
@each_study
def test_a_dry_run_has_the_jobs_of_the_plan(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    counts, planned = both(f"workflow/studies/{name}.yaml")
    assert counts == planned and sum(counts.values()) + 1 == JOBS[name]


@pytest.mark.pipeline
def test_two_files_are_laid_over_the_config_as_by_snakemake(folder, monkeypatch):
    monkeypatch.chdir(folder)
    euler = {"kind": "euler", "steps": 4, "label": "Euler, 4 NFE"}
    row = {"pretrain": ["ve"], "kimg": [1], "samplers": ["euler", "heun"]}
    experiments = {"split": None, "schedules": None, "solvers": None, "methods": {"rows": [row]}}
    mine = {"samplers": {"euler": euler}, "experiments": experiments, "search": None}
    Path("mine.yaml").write_text(yaml.safe_dump(mine))
    counts, planned = both("workflow/studies/smoke.yaml", "mine.yaml")
    assert counts == planned and planned["tabulate"] == 1 and "search_steps" not in planned


def test_every_study_is_dry_run_here():
    others = {"images"}  # needs a folder of one's own; its own test makes one
    assert {path.stem for path in STUDIES.glob("*.yaml")} - others == set(JOBS)


@pytest.mark.parametrize(
    "name, factor",
    [("cifar10-1hour", 0.9993)]
    + [(name, 0.9999) for name in ("cifar10", "cifar10-scratch", "cifar10-flow")],
)
def test_half_lives_are_the_released_factors_of_a_step(name, factor):
    recipe = config(name)["tune"]["ect"]
    found = 0.5 ** (recipe["batch"] / (1000 * recipe["ema_halflife_kimg"]))
    assert 1 - found == pytest.approx(1 - factor, rel=1e-3)


@pytest.mark.parametrize("name", ["cifar10-scratch", "cifar10-flow", "budget-split"])
def test_the_network_has_the_released_number_of_parameters(name):
    networks = load.resolve(config(name))["networks"]
    assert list(networks) == ["ddpmpp"]
    assert parameters(networks["ddpmpp"], (3, 32, 32)) == 55_732_739
