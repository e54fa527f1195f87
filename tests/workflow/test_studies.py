"""The studies of workflow/studies: each dry-runs with its exact jobs, which are those of its plan,
and its settings are the released ones where it says so."""

import re
from pathlib import Path

import pytest
import yaml

from ect.config import fits, load, published
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.config.missing import Needed
from ect.data import look
from ect.models.build import parameters
from ect.study import cost, settings, table
from tests.helpers import warm
from tests.helpers.workflow import copy_workflow, snakemake

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "workflow" / "studies"
JOBS = {  # with `all`
    "cifar10-1hour": 38,
    "cifar10": 92,
    "cifar10-scratch": 88,
    "cifar10-flow": 75,
    "budget-split": 457,
    "cifar10-jpeg": 131,
    "imagenet64": 73,
    "imagenet64-adm": 39,
    "cifar10-cond": 38,
    "ffhq64": 56,
    "augmentation": 57,
    "afhqv2-64": 56,
    "edm2": 114,
    "smoke": 68,
    "baselines": 113,
    "ablations": 459,
    "precision": 176,
    "split-scaling": 1013,
    "images": 64,
    "start": 26,
    "objectives": 623,
    "objectives-fashion": 133,
    "noise": 133,
    "matched-ends": 113,
    "fashion": 113,
}
OWN = ("images", "start", "cifar10-jpeg")  # of images and models of one's own
each_study = pytest.mark.parametrize("name", JOBS)


def config(name):
    return load.read(ROOT / "config.yaml", STUDIES / f"{name}.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the workflow, with neither weights nor images."""
    folder = tmp_path_factory.mktemp("workflow")
    copy_workflow(folder)
    return folder


def both(*files):
    """({rule: jobs} of a dry run but `all`, {rule: jobs} of the plan)."""
    done = warm.run("snakemake", "--cores", "all", "--dry-run", "--configfile", *files)
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
def test_a_run_without_its_files_ends_before_the_first_job_with_one_line(folder):
    for _ in range(2):  # and leaves no lock
        done = snakemake(folder, "--configfile", "workflow/studies/cifar10-1hour.yaml")
        lines = (done.stdout + done.stderr).splitlines()
        (said,) = (line for line in lines if "cannot be run" in line)
        assert "init.edm.file: found no 'models/edm-cifar10-32x32-uncond-vp.pkl'" in said
        assert "/edm/pretrained/edm-cifar10-32x32-uncond-vp.pkl, about 223 MB" in said
        assert done.returncode == 1 and not (folder / "results").exists()


@each_study
def test_a_study_is_planned_without_weights_and_images(name, tmp_path, monkeypatch):
    """In this process, where no other file than the config is: what is missing is listed."""
    monkeypatch.chdir(tmp_path)
    study = Config.read(config(name))
    fits.check(study, look.facts(study.dataset))
    found = cost.plan(study)
    assert sum(jobs["to_do"] for jobs in found["jobs"].values()) + 1 == JOBS[name]
    absent = [Needed(**one) for one in found["missing"]]
    wanted = {block.file for block in study.init.values()}
    wanted |= {study.dataset.folder or study.dataset.archive} - {None}
    files = [one for one in absent if not one.package]
    assert {one.path for one in files if one.job is None} == wanted
    unknown = {one.path for one in absent if not (one.source and one.size)}
    assert unknown == (wanted if name in OWN else set())
    assert len(table.table(found).splitlines()) > len(absent)


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
    assert {path.stem for path in STUDIES.glob("*.yaml")} == set(JOBS)


@pytest.mark.parametrize(
    "name, factor",
    [("cifar10-1hour", 0.9993)]
    + [(name, 0.9999) for name in ("cifar10", "cifar10-scratch", "cifar10-flow")],
)
def test_half_lives_are_the_released_factors_of_a_step(name, factor):
    recipe = config(name)["tune"]["ect"]
    found = 0.5 ** (recipe["batch"] / (1000 * recipe["ema_halflife_kimg"]))
    assert 1 - found == pytest.approx(1 - factor, rel=1e-3)


def test_tables_say_what_an_average_was_trained_on():
    study = Config.read(config("edm2"))
    found = {cell.model: settings.facts(study, cell) for cell in study.cells("methods")}
    assert len(found) == 6
    for facts in found.values():
        assert facts["pretrain"] == "middle"
        assert (facts["process"], facts["parameterization"], facts["kimg"]) == ("ve", "edm", 48)


SIZES = {"s": (1.0e-3, 0.4), "m": (0.9e-3, 0.5), "l": (0.8e-3, 0.5), "xl": (0.7e-3, 0.5)}


@pytest.mark.parametrize("size", SIZES)
def test_ects_presets_for_imagenet_are_the_released_ones(size, folder, monkeypatch):
    """From a start in EDM2's file: 100,000 steps of 128 images in 4 stages, to the last setting."""
    monkeypatch.chdir(folder)
    study = Config.read(config("imagenet64"))
    model = Tuned(Milestone(f"edm2_{size}", 0, 0), "sigmoid", f"ect_{size}", 12_800, 0)
    assert model in [cell.model for cell in study.cells("methods")]
    found, (rate, dropout) = settings.train(study, model), SIZES[size]
    optimizer = {"name": "adam", "lr": rate, "betas": [0.9, 0.99], "warmup_kimg": 0.0}
    optimizer |= {"decay": "inverse_sqrt", "decay_kimg": 2000 * 128 / 1000}
    recipe = {
        "batch": 128, "precision": "tf32", "weight": "edm", "dropout": dropout, "dropout_at": 16,
        "masks": 2,
        "prior": {"kind": "lognormal", "options": {"mean": -0.8, "std": 1.6}},
        "distance": {"kind": "huber", "c": 0.06}, "ema_std": [0.05, 0.01, 0.1], "ema_ramp": None,
        "optimizer": optimizer | {"decay_from": 1.0, "lr_final": 0.0},
    }  # fmt: skip
    part = {"microbatch": 32} if size == "xl" else {}  # ours, for memory alone
    assert found["recipe"] == recipe | part and found["target"] == "own"
    options = {"q": 4.0, "stages": 4, "k": 8.0, "b": 1.0}
    assert found["schedule"] == {"map": "sigmoid", "options": options, "clock": "noise"}
    assert 1000 * found["last_kimg"] == 128 * 100_000
    assert study.samplers["one_step"].options() == {"times": []}
    assert study.samplers["two_step"].options() == {"times": [1.526]}


AUGMENTED = {  # EDM's README: probability, rate, batch, dropout, and parameters with 9 labels
    "cifar10-scratch": (0.12, 1.0e-3, 512, 0.13, 55_733_891),
    "cifar10-flow": (0.12, 1.0e-3, 512, 0.13, 55_733_891),
    "budget-split": (0.12, 1.0e-3, 512, 0.13, 55_733_891),
    "ffhq64": (0.15, 2.0e-4, 256, 0.05, 61_805_571),
    "afhqv2-64": (0.15, 2.0e-4, 256, 0.25, 61_805_571),
}


@pytest.mark.parametrize("name", AUGMENTED)
def test_pretraining_is_augmented_as_edms_and_tuning_is_not(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    study, (p, rate, batch, dropout, count) = Config.read(config(name)), AUGMENTED[name]
    side = 64 if name.endswith("64") else 32
    models = list(dict.fromkeys(cell.model for cell in study.all_cells()))
    for model in models:
        found = settings.train(study, model)
        assert parameters(found["network"], (3, side, side)) == count
        recipe, tuned = found["recipe"], isinstance(model, Tuned)
        assert recipe.get("augment") == (None if tuned else {"kind": "edm", "p": p})
        if not tuned:
            found = recipe["optimizer"]["lr"], recipe["batch"], recipe["dropout"]
            assert found == (rate, batch, dropout) and recipe["ema_ramp_before"]


@pytest.mark.parametrize("name", JOBS)
def test_a_row_has_the_evaluations_of_the_numbers_beside_it(name, folder, monkeypatch):
    """Else no number of ours would stand beside it: EDM2's FID is of 63 evaluations."""
    monkeypatch.chdir(folder)
    study = Config.read(config(name))
    numbers = [n for n in published.read() if n.dataset == study.dataset.source]
    for rows in (rows for one in study.experiments.values() for rows in one.rows):
        ours = {study.samplers[sampler].evaluations for sampler in rows.samplers}
        for wanted in rows.published:
            found = [n.nfe for n in numbers if n.answers(wanted.method, wanted.budget_mimg)]
            assert found and ours & set(found), wanted


@pytest.mark.parametrize("name", ["imagenet64", "imagenet64-adm", "ffhq64", "afhqv2-64"])
def test_published_settings_hold_no_image_out(name):
    assert Config.read(config(name)).dataset.held_out == 0


def test_each_of_edm2s_files_stands_beside_its_published_fid(folder, monkeypatch):
    monkeypatch.chdir(folder)
    study = Config.read(config("imagenet64"))
    beside = {cell["method"] for cell in study.beside_published()["cells"]}
    assert {f"EDM2-{size.upper()}" for size in SIZES} <= beside
    for size in SIZES:
        [number] = [n for n in published.read() if n.method == f"EDM2-{size.upper()}"]
        start = study.init[f"edm2_{size}"]
        assert start.pretrain_mimg == pytest.approx(number.budget_mimg, abs=0.06)
        assert f"-{size}-{1000 * start.pretrain_mimg:07.0f}-" in start.file


def test_imagenets_stochastic_sampler_has_edms_constants(folder, monkeypatch):
    monkeypatch.chdir(folder)
    sampler = Config.read(config("imagenet64-adm")).samplers["heun_churn"]
    wanted = {"churn": 40.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003}
    assert sampler.options() == {"steps": 256, **wanted} and sampler.evaluations == 511


@pytest.mark.parametrize("name", ["cifar10-scratch", "cifar10-flow", "budget-split"])
def test_the_network_has_the_released_number_of_parameters(name):
    networks = load.resolve(config(name))["networks"]
    assert list(networks) == ["ddpmpp"]
    assert parameters(networks["ddpmpp"], (3, 32, 32)) == 55_732_739
