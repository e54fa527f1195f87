"""The plan of a study: its config is the one that Snakemake makes, its sums are those of the cells,
and what earlier jobs measured is used for the same work alone."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from snakemake.common.configfile import load_configfile
from snakemake.settings.types import ConfigSettings
from snakemake.utils import update_config

from ect.cli.main import main
from ect.config import dataset, load
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.evaluation import search
from ect.models.build import parameters
from ect.runtime import checkpoint
from ect.study import cost, jobs, table
from ect.study import settings as study_settings
from ect.training import train
from tests.helpers.configs import DEFAULT, SEARCH, changed

TREES = st.recursive(
    st.none() | st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def as_snakemake(config, *studies):
    """What Snakemake makes of a configfile and of those that follow --configfile."""
    over = ConfigSettings(configfiles=studies).overwrite_config
    found = copy.deepcopy(over)
    update_config(found, load_configfile(config))
    update_config(found, over)
    return found


def passed_over(under, over):
    """Whether an empty mapping lies over a value that is no mapping: Snakemake leaves the value."""
    if over == {}:
        return not isinstance(under, dict | None)
    under = under if isinstance(under, dict) else {}
    inner = over.items() if isinstance(over, dict) else ()
    return any(passed_over(under.get(key), value) for key, value in inner)


@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_files_are_laid_over_one_another_as_by_snakemake(tmp_path_factory, base, one, two):
    folder, paths = tmp_path_factory.mktemp("configs"), []
    for index, mapping in enumerate((base, one, two)):
        paths.append(folder / f"{index}.yaml")
        paths[-1].write_text(yaml.safe_dump(mapping))
    both = as_snakemake(paths[1], paths[2])
    leaves_two = passed_over(base, one)
    leaves_three = passed_over(one, two) or passed_over(base, both)
    for some, leaves in ((paths, leaves_three), (paths[:2], leaves_two), (paths[:1], False)):
        if leaves:
            with pytest.raises(ValueError, match=r"found \{\}, which leaves"):
                load.read(*some)
        else:
            assert load.read(*some) == as_snakemake(*some)


@pytest.mark.parametrize("verb", ["status", "plan"])
def test_verbs_lay_files_over_the_config_beside_them_the_last_one_on_top(verb, capsys):
    def said(*files):
        assert main([verb, *files]) == 0
        return capsys.readouterr().out

    rows = DEFAULT["experiments"]["methods"]
    one = {"study": "one", "experiments": {"split": None, "schedules": None, "solvers": None}}
    two = {"study": "two", "experiments": {"methods": rows | {"rows": rows["rows"][:1]}}}
    for name, mapping in (("one", one), ("two", two), ("config", DEFAULT)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(mapping))
    both, turned = said("one.yaml", "two.yaml"), said("two.yaml", "one.yaml")
    assert len({said(), said("config.yaml")}) == 1
    assert len({said(), said("one.yaml"), said("two.yaml"), both}) == 4
    whole = as_snakemake(*(Path(f"{name}.yaml") for name in ("config", "one", "two")))
    Path("whole.yaml").write_text(yaml.safe_dump(whole))
    assert both == said("whole.yaml")
    if verb == "plan":  # names the study
        assert "study two" in both and both.replace("study two", "study one") == turned
    Path("config.yaml").unlink()
    assert said("whole.yaml") == both
    assert main([verb]) == 1 and "config.yaml: No such file" in capsys.readouterr().err


def plan_of(config, **options):
    return cost.plan(Config.read(config), **options)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without results."""
    monkeypatch.chdir(tmp_path)


def test_sums_are_those_of_the_cells():
    study, found = Config.read(DEFAULT), plan_of(DEFAULT)
    models = {cell.model for cell in study.all_cells()} | {study.shown("loss")}
    tuned = [m for m in models if isinstance(m, Tuned)]
    assert found["tuning_images"]["in_all"] == 1000 * sum(m.kimg for m in tuned)
    ends = {}
    for model in models:
        start = model.start if isinstance(model, Tuned) else model
        ends[start.pretrain] = max(start.kimg, ends.get(start.pretrain, 0))
    assert found["pretraining_images"]["in_all"] == 1000 * sum(ends.values())
    images = study.evaluation.images
    cells = sum(images * study.samplers[c.sampler].evaluations for c in study.all_cells())
    snapshots = 1 + study.tune[study.figures.loss.tune].snapshots
    assert found["network_evaluations"]["in_all"] == cells + snapshots * images * (1 + 2 + 4)
    assert found["jobs"]["sample"]["in_all"] == found["jobs"]["evaluate"]["in_all"]
    assert all(both["to_do"] == both["in_all"] for both in found["jobs"].values())


def test_no_job_is_there_twice():
    config = DEFAULT | {"search": SEARCH}
    paths = [job.path for job in jobs.jobs(Config.read(config))]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_search_draws_at_most_what_the_plan_says(k):
    block = SEARCH | {"steps": [k], "evaluations": 5, "images": 10}
    study = Config.read(DEFAULT | {"search": block})
    job = next(job for job in jobs.jobs(study) if job.rule == "search_steps")
    asked, times = [], ()

    def value(levels):
        asked.append(1 + len(levels))
        return sum((level - 1 / (1 + i)) ** 2 for i, level in enumerate(levels))

    for _ in range(k - 1):
        times, _ = search.extend(value, times, block | {"low": 0.02, "high": 40.0})
    drawn = 10 * len(asked) + study.evaluation.images
    assert drawn <= job.drawn and (k > 2 or drawn == job.drawn)
    assert 10 * sum(asked) + k * study.evaluation.images <= job.evaluations


def test_hours_at_a_given_rate_are_images_over_it():
    found = plan_of(DEFAULT, rate=400.0)
    images = found["pretraining_images"]["in_all"] + found["tuning_images"]["in_all"]
    (hours,) = found["hours"]
    assert hours["of"] == "training" and hours["in_all"] == pytest.approx(images / 400 / 3600)


def test_what_is_not_known_is_empty(capsys):
    found = plan_of(DEFAULT)
    assert found["hours"][0]["in_all"] is None and found["disk_bytes"]["in_all"] is None
    Path("config.yaml").write_text(yaml.safe_dump(DEFAULT))
    assert main(["plan"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\nhours of training +unknown +unknown\n", text) and "None" not in text
    assert main(["plan", "--rate", "400"]) == 0
    assert "nknown" not in capsys.readouterr().out


def test_what_is_finished_is_not_to_do():
    study = Config.read(DEFAULT)
    every = jobs.jobs(study)
    done = [job for index, job in enumerate(every) if index % 3 == 0]
    for job in done:
        path = Path(study.root, job.path.replace("*", "npz"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = cost.plan(study)
    counts = found["jobs"].values()
    assert sum(both["in_all"] - both["to_do"] for both in counts) == len(done) > 40
    left = sum(job.trained for job in every if job not in done)
    assert found["tuning_images"]["to_do"] + found["pretraining_images"]["to_do"] == left


def test_what_snakemake_would_run_again_is_to_do_and_its_silence_is_told():
    study = Config.read(DEFAULT)
    outputs = {f"{study.root}/data/{name}" for name in ("dataset.safetensors", "run.json")}
    assert not cost.plan(study, pending=pytest.fail)["by_files"]  # nothing is there to ask about
    Path(study.root, "data").mkdir(parents=True)
    Path(study.root, "data", "dataset.safetensors").touch()
    found = cost.plan(study, pending=lambda: outputs)
    assert [rule for rule, both in found["jobs"].items() if both["to_do"]] == ["prepare_data"]
    assert not found["by_files"] and table.BY_FILES not in table.table(found)
    found = cost.plan(study, pending=lambda: None)
    assert found["jobs"]["prepare_data"]["to_do"] == 0 and found["by_files"]
    assert table.BY_FILES in table.table(found)


SMALL = {"channels": 8, "multipliers": [1, 1], "blocks": 1, "attention": []}


def small():
    """The default study with a network of 8 channels, and one piece of its chain."""
    config = changed("networks/small", SMALL)
    config["pretrain"]["ve"] |= {"kimg": 2, "every": 1}
    row = {"pretrain": ["ve"], "kimg": [1], "tune": "ect_slope", "tune_kimg": 1}
    row |= {"schedules": ["sigmoid"], "samplers": ["one_step"]}
    config["experiments"] = {"one": {"question": "?", "kind": "methods", "rows": [row]}}
    cut = {"pretrain": "ve", "kimg": 1, "tune": "ect_slope", "tune_kimg": 1, "schedule": "sigmoid"}
    return config | {"figures": {"samples": cut, "loss": cut, "solver": "heun"}}


START, END = Milestone("ve", 0, 0), Milestone("ve", 0, 1)
TUNED = Tuned(END, "sigmoid", "ect_slope", 1, 0)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory, digits_file):
    """A folder of results in which the first pieces of `small` were trained."""
    folder, study = tmp_path_factory.mktemp("pieces"), Config.read(small())
    begin = {"resume": folder / study.root / START.folder / "state.safetensors"}
    begin_tuned = {"init": folder / study.root / END.folder / "model.safetensors"}
    for model, options in ((START, {}), (END, begin), (TUNED, begin_tuned)):
        out = folder / study.root / model.folder
        train.run(study_settings.train(study, model), digits_file, out, **options)
    return folder / "results"


@pytest.fixture
def trained(pieces):
    """The study of `small` in a folder with those pieces, and their folders."""
    shutil.copytree(pieces, "results")
    study = Config.read(small())
    return study, [Path(study.root, model.folder) for model in (START, END, TUNED)]


def test_hours_are_those_that_the_same_work_took(trained):
    study, folders = trained
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    rates = [1000 / record["seconds"] for record in records]
    found = cost.plan(study)
    training = next(hours for hours in found["hours"] if hours["of"] == "training")
    assert training["device"] == records[1]["device"] and training["to_do"] == 0
    assert training["in_all"] == pytest.approx((1000 / rates[1] + 1000 / rates[2]) / 3600)
    larger = small()
    larger["networks"]["small"] = SMALL | {"channels": 12}
    assert plan_of(larger)["hours"][0]["in_all"] is None
    about = checkpoint.load(folders[2] / "model.safetensors")[1]
    assert json.loads(cost._described(folders[2] / "model.safetensors"))[1] == about["shape"]


def test_rates_at_another_size_of_image_are_not_used(trained, monkeypatch):
    study, _ = trained
    monkeypatch.setitem(dataset.SHAPES, "digits", (1, 16, 16))
    assert cost.plan(study)["hours"][0]["in_all"] is None


def test_disk_is_what_the_files_hold(trained):
    study, folders = trained
    held = 0
    for path in [p for folder in folders for p in folder.glob("*.safetensors")]:
        with safe_open(path, framework="numpy") as file:
            values = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
        held += sum(value.nbytes for value in values if value.ndim)  # an optimizer's clock has none
    cells = [job for job in jobs.jobs(study) if job.rule == "sample"]
    found = cost.plan(study, count=parameters)["disk_bytes"]
    assert found["in_all"] == held + sum(job.drawn for job in cells) * 64
    assert found["to_do"] == sum(job.drawn for job in cells) * 64


@pytest.mark.parametrize(
    "text, words",
    [
        ("study: [", "not YAML"),
        ("- study", "found a list; allowed: a study"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_study_is_one_line(capsys, text, words):
    Path("config.yaml").write_text(yaml.safe_dump(DEFAULT))
    if text is not None:
        Path("mine.yaml").write_text(text)
    assert main(["plan", "mine.yaml"]) == 1
    said = capsys.readouterr().err.strip()
    assert words in said and "mine.yaml" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("rate", ["0", "-3", "nan"])
def test_a_rate_that_is_none_is_one_line(capsys, rate):
    Path("config.yaml").write_text(yaml.safe_dump(DEFAULT))
    with pytest.raises(SystemExit):
        main(["plan", "--rate", rate])
    assert f"--rate: found '{rate}'; allowed: a number from 0.001" in capsys.readouterr().err


def test_a_broken_record_is_named(trained):
    study, folders = trained
    (folders[1] / "run.json").write_text('{"settings": {}}')
    with pytest.raises(ValueError, match=r"k1/run\.json: not the record of a job"):
        cost.plan(study)
