"""FD against the length of an average: its table, sentences and figure, its jobs and mistakes."""

import copy
import csv

import pytest

from ect.config import load
from ect.config.config import Config, ConfigError
from ect.report import figures, lengths, sentences, tables
from ect.study import jobs, settings
from tests.helpers.configs import ROOT
from tests.helpers.reports import Inputs

ABOUT = {"short": {"ema_std": 0.05}, "long": {"ema_std": 0.15}}
VALUES = {"long": (9.0, 8.5, 9.2), "short": (12.0, 11.5, 13.0)}


@pytest.fixture
def paths(tmp_path):
    inputs = Inputs(tmp_path)
    cell = {"kimg": 48}
    files = []
    for name, values in VALUES.items():
        for index, fd in enumerate(values):
            facts = inputs.cell_of("heun", **cell) | {"seed": index, "replicate": index}
            files.append(inputs.metrics(fd, facts | {"pretrain": name}))
    return files


def test_the_table_has_a_row_for_each_length_and_the_sentence_names_the_best(paths, tmp_path):
    tables.tabulate("lengths", paths, tmp_path / "t", about=ABOUT)
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["pretrain"], float(row["ema_std"]), row["n"]) for row in rows] == [
        ("short", 0.05, "3"), ("long", 0.15, "3"),
    ]  # fmt: skip
    said = sentences.answer("lengths", sentences.read(f"{tmp_path}/t.csv")[0], {"heun": "Heun"})
    assert said[0].startswith("Heun: best is 0.15")


def test_the_figure_has_a_point_for_each_length_and_replicate(paths, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(lengths.style, "save", lambda drawing, out: kept.append(drawing))
    figures.plot("lengths", {"metrics": paths, "width_in": 5, "about": ABOUT}, tmp_path / "f")
    (axis,) = kept[0].axes
    dots = next(line for line in axis.lines if line.get_marker() == ".")
    assert sorted(zip(*dots.get_data())) == sorted(
        (ABOUT[name]["ema_std"], fd) for name, values in VALUES.items() for fd in values
    )
    means = next(line for line in axis.lines if len(line.get_xdata()) == 2)
    assert list(means.get_ydata()) == pytest.approx([36.5 / 3, 26.7 / 3])
    (text,) = axis.get_legend().get_texts()
    assert text.get_text() == "Heun, 35 NFE (n = 3)"
    with pytest.raises(ValueError, match="about: found nothing on long; allowed: ema_std of all"):
        figures.plot("lengths", {"metrics": paths, "width_in": 5}, tmp_path / "f")


def edm2():
    return load.read(ROOT / "config.yaml", ROOT / "workflow/studies/edm2.yaml")


def test_each_replicate_averages_its_own_pretraining():
    study = Config.read(edm2())
    cells = study.cells("lengths")
    assert len({cell.folder for cell in cells}) == 3 * len(study.lengths("lengths"))
    for cell in cells:
        sources = study.milestones_of(cell.model.pretrain, cell.model.seed)
        assert {milestone.seed for milestone in sources} == {cell.replicate}
        assert "pretraining" not in settings.facts(study, cell)
    trained = {(j.model.pretrain, j.model.seed) for j in jobs.jobs(study) if j.rule == "pretrain"}
    assert trained == {("edm2", number) for number in range(3)}


MISTAKES = {
    "chain": (
        {"pretrain": ["edm2"], "kimg": [48]},
        "rows.0.pretrain: found 'edm2'; allowed: short",
    ),
    "tuned": (
        {"tune": "ect", "tune_kimg": 24, "schedules": ["sigmoid"]},
        "rows.0.tune: found 'ect' with kind 'lengths'; allowed: none",
    ),
}


@pytest.mark.parametrize("changes, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_its_rows_is_named(changes, words):
    config = copy.deepcopy(edm2())
    config["experiments"]["lengths"]["rows"][0] |= changes
    with pytest.raises(ConfigError, match=words):
        Config.read(config)


@pytest.mark.parametrize(
    "starts, equal, found",
    [
        (["short"], {}, r"lengths short \("),
        (["short", "long"], {"long": "short"}, "no two with the"),
    ],
)
def test_lengths_are_several(starts, equal, found):
    config = copy.deepcopy(edm2())
    for name, other in equal.items():
        config["averages"][name]["ema_std"] = config["averages"][other]["ema_std"]
    config["experiments"]["lengths"]["rows"][0]["pretrain"] = starts
    with pytest.raises(ConfigError, match=found):
        Config.read(config)


def test_averages_of_several_runs_are_not_compared():
    config = copy.deepcopy(edm2())
    config["averages"]["long"]["kimg"] = 42
    with pytest.raises(ConfigError, match=r"found averages of several runs, .*long \(edm2, 42\)"):
        Config.read(config)
