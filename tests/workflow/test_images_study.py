"""The study of your own images: three keys lead to its page; its jobs, and what a changed folder
re-runs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ect.config import load
from ect.config.config import Config
from ect.runs import pending
from ect.study import cost
from tests.helpers.workflow import copy_workflow, snakemake

STUDY = ("--configfile", "workflow/studies/images.yaml", "mine.yaml", "--")
DATA = "results/mine/data/dataset.safetensors"

pytestmark = pytest.mark.pipeline


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """The workflow beside a folder of 24 photos in two classes, and a config of its own."""
    copy_workflow(tmp_path)
    for index in range(24):
        draw(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index}.jpg", index)
    configure(tmp_path)
    return tmp_path


CLASSIFIER = {
    "extractor": "classifier",
    "classifier": {"channels": 8, "epochs": 1, "batch": 8, "lr": 1e-3},
}


def configure(folder, features=None, **dataset):
    mine = {"study": "mine", "dataset": {"held_out": 6} | dataset, "features": features or {}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine))


def planned(folder, *targets):
    """{rule: jobs} of a dry run."""
    done = snakemake(folder, "-n", *STUDY, *targets)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    if "Nothing to be done" in text:
        return {}
    counts = re.findall(r"^(\w+) +(\d+)$", text.split("Job stats:")[1], re.MULTILINE)
    return {rule: int(n) for rule, n in counts}


def test_the_jobs_of_the_study(folder):
    jobs = planned(folder)
    trained = {"pretrain": 2 * 4, "tune": 5, "sample": 6 + 5 * 2, "evaluate": 6 + 5 * 2}
    once = (
        "prepare_data",
        "measure_floor",
        "extract_reference",
        "summarize_reference",
        "trace_tuning",
        "perfect_loss",
        "find_nearest",
        "tabulate_nearest",
        "draw_nearest",
        "write_page",
        "study",
    )
    figures = {"draw_maps": 1, "draw_curves": 1, "draw_loss": 1, "draw_samples": 1}
    wanted = trained | dict.fromkeys(once, 1) | figures | {"draw_experiment": 2, "tabulate": 2}
    assert jobs == wanted | {"total": sum(wanted.values())}
    configure(folder, {"extractor": "inception"}, classes=None)
    more = {"total": jobs["total"] + 1}
    assert planned(folder) == jobs | more | {"fetch_inception": 1}
    configure(folder, CLASSIFIER)
    assert planned(folder) == jobs | more | {"train_classifier": 1}


def test_a_changed_folder_is_prepared_again(folder):
    assert snakemake(folder, *STUDY, DATA).returncode == 0
    (folder / "photos" / "notes.txt").write_text("about the cat")
    assert planned(folder, DATA) == {}
    extra = folder / "photos" / "cat" / "new.jpg"
    draw(extra, 99)
    again = {"prepare_data": 1, "total": 1}
    assert planned(folder, DATA) == again
    extra.unlink()
    assert planned(folder, DATA) == {}
    first = folder / "photos" / "cat" / "0.jpg"
    first.write_bytes(first.read_bytes())
    assert planned(folder, DATA) == again


def test_a_zip_is_an_input(folder):
    shutil.make_archive(folder / "photos", "zip", folder / "photos")
    configure(folder, path="photos.zip")
    assert snakemake(folder, *STUDY, DATA).returncode == 0
    assert planned(folder, DATA) == {}
    draw(folder / "photos" / "cat" / "new.jpg", 99)
    shutil.make_archive(folder / "photos", "zip", folder / "photos")
    assert planned(folder, DATA) == {"prepare_data": 1, "total": 1}


def test_a_torn_image_ends_the_run_with_its_name(folder):
    (folder / "photos" / "dog" / "torn.jpg").write_bytes(b"")
    done = snakemake(folder, *STUDY, DATA)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "'dog/torn.jpg' cannot be read" in text
    assert "Traceback" not in text and not (folder / DATA).exists()


THREE_KEYS = "study: pets\ndataset: {path: photos, resolution: 8}\n"
TINY = """
features: {extractor: classifier, classifier: {channels: 8, epochs: 1, batch: 16, lr: 3.0e-3}}
networks: {small: {channels: 8, multipliers: [1], attention: []}}
pretrain: {ve: {kimg: 1, every: 1}, flow: null}
tune: {ect: {snapshots: 1}, ect_slope: null}
evaluation: {images: 20, batch: 20, kd_subsets: 2}
experiments:
  methods:
    rows:
      - {pretrain: [ve], kimg: [1], samplers: [one_step],
         tune: ect, tune_kimg: 1, schedules: [sigmoid]}
  schedules: null
figures: {samples: {kimg: 1, tune_kimg: 1}, loss: {kimg: 1, tune_kimg: 1},
          nearest: {kimg: 1, tune_kimg: 1, sampler: one_step}}
"""


def to_do(*studies):
    """How many jobs a plan counts as to do."""
    study = Config.read(load.read("config.yaml", *studies))
    jobs = cost.plan(study, pending=lambda: pending.outputs(*studies))["jobs"]
    return sum(counts["to_do"] for counts in jobs.values())


def test_three_keys_lead_from_a_folder_to_the_page(tmp_path, monkeypatch):
    """From 40 PNG files in two folders; a second file makes the study tiny."""
    copy_workflow(tmp_path)
    for index in range(40):
        draw(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index}.png", index)
    (tmp_path / "mine.yaml").write_text(THREE_KEYS)
    (tmp_path / "tiny.yaml").write_text(TINY)
    studies = ("workflow/studies/images.yaml", "mine.yaml", "tiny.yaml")
    done = snakemake(tmp_path, "--configfile", *studies)
    assert done.returncode == 0, done.stdout + done.stderr
    root = tmp_path / "results" / "pets"
    data = json.loads((root / "data" / "run.json").read_text())
    assert data["images"] == {"train": 32, "test": 8} and data["classes"] == ["cat", "dog"]
    monkeypatch.chdir(tmp_path)
    assert to_do(*studies) == 0
    Path("more.yaml").write_text("evaluation: {images: 24}")
    changed = to_do(*studies, "more.yaml")
    dry = snakemake(tmp_path, "-n", "--configfile", *studies, "more.yaml").stdout
    total = re.search(r"^total +(\d+)$", dry, re.MULTILINE)
    assert changed == int(total[1]) - 1 > 0  # but the target that names all results
    page = (root / "index.html").read_text()
    assert "study “pets”" in page and page.count("data:image/") >= 6
