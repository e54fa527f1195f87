"""Which measured spread a study's comparisons meet, if any."""

import copy
import json

import pytest

from ect.config import load
from ect.config.config import Config
from ect.config.reports import Planned
from ect.report import planned
from ect.study import noise
from tests.helpers.configs import DEFAULT, ROOT

STUDIES = ROOT / "workflow" / "studies"


def read(*files):
    return Config.read(load.read(ROOT / "config.yaml", *files))


def facts(config):
    return {(fact["experiment"], fact["label"]): fact for fact in noise.planned(config)}


@pytest.mark.parametrize(
    "study", [None, *sorted(STUDIES.glob("*.yaml"))], ids=lambda study: study and study.stem
)
def test_a_page_takes_what_is_planned_of_each_study_as_json(study):
    found = noise.planned(read(*[study] * bool(study)))
    for fact in json.loads(json.dumps(found)):
        Planned.model_validate(fact)


def test_the_package_has_the_published_table():
    published = ROOT / "results" / "published" / "noise" / "tables" / "noise.csv"
    assert noise.FILE.read_bytes() == published.read_bytes()


def test_the_default_study_meets_the_measured_spread_at_one_and_two_steps():
    found = facts(read())
    for name in ("schedules", "split"):
        for label in ("1 step", "2 steps"):
            fact = found[name, label]
            assert fact["spread"] and fact["n"] == 3 and fact["over"] == "tuning seeds"
    assert found["split", "1 step"]["rows"] == 4 and found["schedules", "1 step"]["rows"] == 5
    assert found["methods", "1 step"]["without"] == ["flow"]
    assert found["solvers", "4 steps"]["spread"] is None  # not measured at four


@pytest.mark.parametrize(
    "path, value",
    [
        ("networks/small/channels", 32),
        ("dataset/normalize", "unit"),
        ("evaluation/images", 1000),
        ("features/classifier/epochs", 41),
        ("pretrain/ve/process", "vp_cosine"),
    ],
)
def test_no_spread_fits_other_images_networks_or_features(path, value):
    config = copy.deepcopy(DEFAULT)
    *parts, key = path.split("/")
    block = config
    for part in parts:
        block = block[part]
    block[key] = value
    found = facts(Config.read(config))
    assert found["split", "1 step"]["spread"] is None
    assert "not known" in planned.sentence(found["split", "1 step"])


def test_a_study_of_replicates_counts_them():
    found = facts(read(ROOT / "workflow/studies/split-scaling.yaml"))
    fact = found["scaling", "1 step"]
    assert (fact["over"], fact["n"], fact["rows"], fact["totals"]) == ("replicates", 3, 40, 5)
    assert planned.comparisons(fact) == 35
    ends = facts(read(ROOT / "workflow/studies/matched-ends.yaml"))["ends", "1 step"]
    assert (ends["maps"], ends["gaps"], planned.comparisons(ends)) == (4, 2, 4)
    assert planned.freedom(ends)(3) == 18 - 4 - 1 - 2
    assert not facts(
        read(ROOT / "workflow/studies/noise.yaml")
    )  # it measures, and compares nothing
