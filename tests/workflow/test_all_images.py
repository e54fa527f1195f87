"""A study whose images are all trained with, `held_out: 0`, from pixels to its page."""

import json
import re

import pytest
import yaml
from snakemake.utils import update_config

from ect.config.config import Config, ConfigError
from ect.evaluation import features
from ect.study.jobs import jobs
from tests.helpers.workflow import SMOKE, copy_workflow, smoke, snakemake

pytestmark = pytest.mark.pipeline

ROW = {"pretrain": ["ve"], "kimg": [1], "tune": "ect", "tune_kimg": 1, "schedules": ["sigmoid"]}
ALL = {
    "study": "all",
    "dataset": {"held_out": 0},
    "experiments": dict.fromkeys(("schedules", "split", "solvers"))
    | {"methods": {"rows": [ROW | {"samplers": ["one_step"]}]}},
    "figures": {"loss": None},
    "search": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the workflow in which such a study has run from clean."""
    folder = tmp_path_factory.mktemp("workflow")
    copy_workflow(folder)
    (folder / "all.yaml").write_text(yaml.safe_dump(ALL))
    done = snakemake(folder, "--configfile", SMOKE, "all.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_reference_is_every_image(folder):
    root = folder / "results" / "all"
    record = json.loads((root / "data" / "run.json").read_text())
    assert record["images"] == {"train": 1797, "test": 0}
    assert len(features.load(root / "features" / "reference.safetensors")[1]) == 1797
    measured = [json.loads(path.read_text()) for path in root.rglob("metrics.json")]
    assert measured and all(one["reference_images"] == 1797 for one in measured)


def test_nothing_is_said_of_held_out_images(folder):
    root = folder / "results" / "all"
    assert not (root / "data" / "floor.json").exists()
    assert "test_accuracy" not in json.loads((root / "features" / "run.json").read_text())
    assert "floor" not in (root / "tables" / "methods.csv").read_text()
    for path in (root / "index.html", *(root / "tables").iterdir()):
        assert "real test images" not in path.read_text().lower()
    done = snakemake(folder, "--configfile", SMOKE, "all.yaml", "--report", "report.html")
    assert done.returncode == 0, done.stderr
    assert "real test images" not in (folder / "report.html").read_text().lower()


def test_its_jobs_are_those_of_the_plan(folder):
    done = snakemake(folder, "-n", "--forceall", "--configfile", SMOKE, "all.yaml")
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^rule (\w+):", done.stdout + done.stderr, re.MULTILINE))
    config = smoke()
    update_config(config, ALL)
    study = Config.read(config)
    assert "measure_floor" not in listed
    assert listed - {"study"} == {job.rule for job in jobs(study)}


def test_what_shows_held_out_images_is_refused():
    config = smoke() | {"dataset": {"source": "digits", "held_out": 0}}
    config["figures"]["nearest"] = config["figures"]["loss"] | {"sampler": "one_step"}
    with pytest.raises(ConfigError, match=r"^figures\.nearest: set with dataset\.held_out 0;"):
        Config.read(config)
