"""What a plan counts as to do is what Snakemake would run: what is not there, and what follows from
what changed."""

import copy
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from ect.config import load
from ect.config.config import Config
from ect.config.dataset import Dataset
from ect.data import look, prepare
from ect.runtime.versions import STAGES
from ect.study import jobs, left, settings
from tests.helpers.configs import ROOT

SMOKE = dict(load.read(ROOT / "config.yaml", ROOT / "workflow/studies/smoke.yaml"))


@pytest.fixture(autouse=True)
def finished(tmp_path, monkeypatch):
    """A folder where every job of the study has left its file, and its record."""
    monkeypatch.chdir(tmp_path)
    study = Config.read(SMOKE)
    for job in jobs.jobs(study):
        path = Path(study.root, job.path.replace("*", "safetensors"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if job.rule in ("pretrain", "tune"):
            recorded(path.parent, settings.train(study, job.model))
    for cell in study.all_cells():
        drawn = settings.sample(study, cell.sampler, replicate=cell.replicate)
        recorded(Path(study.root, cell.folder), drawn)
    recorded(Path(study.root, "data"), study.dataset.resolved())
    recorded(Path(study.root, "features"), settings.train_classifier(study))


def recorded(folder, made, **stages):
    record = {"settings": made, "stages": STAGES | stages}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))


def counts(*changes, images_changed=False):
    """{rule: jobs that are to do} with keys of the study changed, each a path and a value."""
    config = copy.deepcopy(json.loads(json.dumps(SMOKE)))
    for path, value in changes:
        *blocks, key = path.split("/")
        place = config
        for block in blocks:
            place = place[block]
        place[key] = value
    study = Config.read(config)
    every = jobs.jobs(study)
    return Counter(job.rule for job in left.left(study, every, images_changed))


def test_nothing_is_to_do_where_nothing_changed():
    assert counts() == {}


def test_of_other_images_all_but_the_maps_is():
    every = Counter(job.rule for job in jobs.jobs(Config.read(SMOKE)))
    every.pop("draw_maps")
    assert counts(images_changed=True) == counts(("dataset/held_out", 300)) == every


def test_a_recipe_of_pretraining_is_followed_to_the_page():
    """As `snakemake -n` counts them: of two chains of `ve`, and of what is tuned from them."""
    wanted = {"pretrain": 4, "tune": 6, "sample": 12, "evaluate": 12, "draw_experiment": 4}
    wanted |= {"tabulate": 4} | dict.fromkeys(
        ("perfect_loss", "draw_curves", "search_steps", "trace_tuning", "draw_loss",
         "draw_samples", "tabulate_steps", "write_page"), 1)  # fmt: skip
    assert counts(("pretrain/ve/batch", 32)) == wanted


def test_a_recipe_of_tuning_leaves_pretraining():
    found = counts(("tune/ect_slope/batch", 32))
    assert found["tune"] == found["sample"] == found["evaluate"] == 1 and found["pretrain"] == 0
    assert found["tabulate"] == 1 and found["write_page"] == 1 and found["draw_maps"] == 0


def test_a_sampler_leaves_training():
    cells = [cell for cell in Config.read(SMOKE).all_cells() if cell.sampler == "four_step"]
    found = counts(("samplers/four_step/times", [2.0, 0.5, 0.25]))
    assert found["evaluate"] == len(cells) == 1 and found["tune"] == found["pretrain"] == 0
    assert found["tabulate"] == found["draw_experiment"] == 1


def test_another_classifier_is_another_feature_space():
    found = counts(("features/classifier/epochs", 3))
    cells = Config.read(SMOKE).all_cells()
    assert found["train_classifier"] == found["extract_reference"] == found["measure_floor"] == 1
    assert found["evaluate"] == len(cells) and found["sample"] == found["tune"] == 0


def test_what_another_version_of_a_stage_made_is_to_do():
    study = Config.read(SMOKE)
    recorded(Path(study.root, "data"), study.dataset.resolved(), prepare=STAGES["prepare"] - 1)
    assert counts()["prepare_data"] == 1


def test_a_record_that_cannot_be_read_changes_no_count():
    for path in Path().rglob("run.json"):
        path.write_text("{")
    assert counts() == {}


def test_a_removed_an_added_and_a_touched_image_are_seen():
    for index in range(6):
        Path("photos").mkdir(exist_ok=True)
        Image.new("L", (8, 8), 40 * index).save(f"photos/{index}.png")
    block = {"source": "images", "path": "photos", "normalize": "unit", "held_out": 2}
    dataset = Dataset(**block)
    prepare.run(dataset.resolved(), Path("d/data.safetensors"))

    def changed():
        return look.changed(dataset, "d/run.json")

    assert not changed() and not look.changed(dataset, "none/run.json")
    Path("photos/notes.txt").write_text("no image")
    assert not changed()
    kept = Path("photos/3.png").rename("3.png")
    assert changed()
    kept.rename("photos/3.png")
    assert not changed()
    Image.new("L", (8, 8)).save("photos/7.png")
    assert changed()
    Path("photos/7.png").unlink()
    os.utime("photos/0.png", (0, 0))
    assert changed()


def test_a_newer_archive_is_seen():
    Path("a.zip").write_text("")
    recorded(Path("d"), {})
    dataset = Dataset(source="images", path="a.zip", held_out=2)
    os.utime("a.zip", (0, 0))
    assert not look.changed(dataset, "d/run.json")
    os.utime("a.zip", (2**31, 2**31))
    assert look.changed(dataset, "d/run.json")
