"""The Snakefile for real: a tiny study from pixels to report, and what a changed config re-runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from ect.config import load
from ect.config.config import Config
from ect.runtime import checkpoint, forks, forkserver
from tests.helpers import warm
from tests.helpers.checkpoints import Persistent, unet
from tests.helpers.workflow import SMOKE, copy_workflow, snakemake, stand_in_for_conda

ROOT = Path(__file__).parents[2]
NO_OTHERS = dict.fromkeys(("schedules", "split", "solvers"))  # of the experiments

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A copy of the workflow in which the smoke study has run from clean."""
    folder = tmp_path_factory.mktemp("workflow")
    copy_workflow(folder)
    done = snakemake(folder, "--configfile", SMOKE)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def planned(study, overlay):
    """{rule: jobs} of a dry run of the smoke study under a changed config."""
    (study / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    done = snakemake(study, "-n", "--configfile", SMOKE, "overlay.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    counts = dict(re.findall(r"^(\w+) +(\d+)$", text.split("Job stats:")[1], re.MULTILINE))
    return {rule: int(n) for rule, n in counts.items() if rule not in ("total", "study")}


def results(study):
    return study / "results" / "smoke"


def test_tables_and_figures_exist(study):
    names = {path.name for path in (results(study) / "figures").iterdir()}
    asked = ("methods", "schedules", "split", "solvers")
    for figure in (*asked, "maps", "curves", "samples", "loss"):
        assert {f"{figure}.png", f"{figure}.pdf"} <= names
    tables = {path.name for path in (results(study) / "tables").iterdir()}
    assert {f"{name}.{kind}" for name in asked for kind in ("csv", "md", "tex")} <= tables


def test_every_job_left_its_record(study):
    record = json.loads(next(results(study).glob("tune/**/run.json")).read_text())
    assert record["settings"]["schedule"]["map"] in ("sigmoid", "piecewise")
    assert all(len(digest) == 64 for digest in record["inputs"].values())
    assert record["threads"] == 1 and record["images_per_second"] > 0
    accuracy = json.loads((results(study) / "features" / "run.json").read_text())["test_accuracy"]
    assert 0.3 < accuracy <= 1


def test_searched_times_are_measured_on_the_evaluations_seeds(study):
    found = json.loads(next(results(study).glob("tune/**/steps.json")).read_text())
    assert found["test"] == {"seed": 0, "images": 100} and found["search"]["seed"] == 1000
    assert [len(row["times"]) for row in found["steps"]] == [1, 2]
    assert all(row["test"] > 0 for row in found["steps"])
    table = (results(study) / "tables" / "steps.csv").read_text().splitlines()
    assert len(table) == 3 and table[0].endswith("k,times,search,test")


def test_report_is_one_file(study):
    done = snakemake(study, "--configfile", SMOKE, "--report", "report.html")
    assert done.returncode == 0, done.stderr
    text = (study / "report.html").read_text()
    assert len(text) > 100_000 and "data:image/png" in text


def test_the_page_is_made_of_every_record_and_again_of_what_changed(study):
    done = snakemake(study, "write_page", "--configfile", SMOKE)
    assert done.returncode == 0, done.stderr
    text = (results(study) / "index.html").read_text()
    kinds = ("run.json", "reference.json", "features.json")
    records = [path for kind in kinds for path in results(study).rglob(kind)]
    sets = list(results(study).rglob("samples.npz"))  # each with a strip in the gallery
    assert f"<td>{len(records)}</td>" in text and text.count("data:image/png") == 8 + len(sets)
    assert text.count("<h2>") == 11 and ": no verdict" in text
    for overlay, jobs in (({}, set()), ({"figures": {"widths_in": {"loss": 5.0}}}, {"draw_loss"})):
        (study / "overlay.yaml").write_text(yaml.safe_dump(overlay))
        done = snakemake(study, "-n", "write_page", "--configfile", SMOKE, "overlay.yaml")
        rules = set(re.findall(r"^rule (\w+):", done.stdout + done.stderr, re.MULTILINE))
        assert rules == jobs | ({"write_page"} if jobs else set()), done.stderr


def test_nothing_changed(study):
    assert planned(study, {}) == {}


WATCHED = """
import sys
from ect.runtime import forkserver
def work(words):
    from ect.cli import main
    before = set(sys.modules)
    code = main.main(words)
    print(*set(sys.modules) - before, file=open("loaded.txt", "a"))
    return code
forkserver.serve(sys.argv[1], work)
"""


def test_a_forked_job_loads_no_package_itself(study, tmp_path, monkeypatch):
    """The server has loaded what its verb needs: it would cost each job more than its work."""
    again = snakemake(study, "-n", "-p", "--forceall", "--configfile", SMOKE).stdout
    jobs = [shlex.split(line)[3:] for line in re.findall(r"python -m ect .*", again)]
    firsts = {next(word for word in words if word in forkserver.LOADED): words
              for words in jobs if set(words) & set(forkserver.LOADED)}  # fmt: skip
    assert len(firsts) >= 10
    shutil.copytree(study, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "copy"))
    monkeypatch.setenv(forks.PLACE, str(tmp_path / "forks"))
    for name in forks.THREADS:
        monkeypatch.setenv(name, "1")
    command = [sys.executable, "-c", WATCHED, os.environ[forks.PLACE]]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        while not Path(os.environ[forks.PLACE]).exists():
            assert server.poll() is None
            time.sleep(0.01)
        for verb in ("tabulate", "sample", "evaluate", "train", *firsts):
            assert subprocess.run([sys.executable, "-m", "ect", *firsts[verb]]).returncode == 0
        server.stdin.close()
    lines = Path("loaded.txt").read_text().splitlines()
    assert len(lines) == 4 + len(firsts)
    assert max(len(line.split()) for line in lines) <= 20, max(lines, key=len)


@contextmanager
def edited(path, old, new):
    """A file with another text, for a while."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_text(text)


def reruns(study, *words):
    """The rules of a dry run of the smoke study with the bare command."""
    done = snakemake(study, "-n", *words, "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^rule (\w+):", done.stdout + done.stderr, re.MULTILINE))


def test_an_edit_of_rules_or_environments_trains_nothing_again(study, tmp_path, monkeypatch):
    """A comment in envs/, a space in a rule's text, `--use-conda` used and not. Without the profile
    that Snakemake loads by itself each of them would."""
    programs = stand_in_for_conda(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    rules, environment = study / "workflow/rules/train.smk", study / "envs/ect.yaml"
    unprotected = ("--workflow-profile", "none")
    with edited(rules, "python -m ect --threads", "python  -m ect --threads"):
        assert reruns(study) == set()
        assert {"pretrain", "tune"} <= reruns(study, *unprotected)
    assert reruns(study, "--use-conda") == set()
    assert {"pretrain", "tune"} <= reruns(study, "--use-conda", *unprotected)
    figure = "results/smoke/figures/maps.png"
    done = snakemake(study, figure, "--use-conda", "--force", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert reruns(study, figure) == set()
    assert reruns(study, figure, *unprotected) == {"draw_maps"}
    with edited(environment, "channels:", "# A comment.\nchannels:"):
        assert reruns(study, figure, "--use-conda") == set()
        assert reruns(study, figure, "--use-conda", *unprotected) == {"draw_maps"}


@pytest.mark.parametrize("cluster", ["local", "slurm", "kubernetes"])
def test_every_profile_has_the_triggers_of_the_default_one(cluster):
    own, default = (
        yaml.safe_load((ROOT / path / "config.yaml").read_text())
        for path in (f"workflow/profiles/{cluster}", "profiles/default")
    )
    assert default == {key: own[key] for key in default}


def test_the_default_profile_is_laid_over_a_clusters(study):
    done = snakemake(study, "-n", "--configfile", SMOKE, "--profile", "workflow/profiles/slurm")
    assert "and workflow specific profile profiles/default" in done.stderr
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr


def test_same_numbers_written_otherwise(study):
    same = {"optimizer": {"lr": 0.002, "warmup_kimg": 1}}
    assert planned(study, {"pretrain": {"ve": same}}) == {}
    assert planned(study, {"schedules": {"sigmoid": {"q": 2.0}}}) == {}


def test_a_time_limit_is_the_trainers_and_reruns_nothing(study):
    limit = ["--default-resources", "runtime=60"]
    done = snakemake(study, "-n", "--configfile", SMOKE, *limit)
    assert "Nothing to be done" in done.stdout + done.stderr
    for words, ends in ((limit, True), ([], False)):
        done = snakemake(study, "-n", "--configfile", SMOKE, "-R", "pretrain", *words)
        text = done.stdout + done.stderr
        trainers = re.findall(r"python -m ect .* train .*\S", text)
        assert trainers
        assert all(line.endswith(" --max-minutes 55") == ends for line in trainers)


def test_width_of_one_figure(study):
    assert planned(study, {"figures": {"widths_in": {"loss": 5.0}}}) == {
        "draw_loss": 1,
        "write_page": 1,
    }


def test_one_schedule(study):
    jobs = planned(study, {"schedules": {"piecewise": {"q": 4}}})
    assert jobs["tune"] == 1 and jobs["sample"] == 1 and jobs["evaluate"] == 1
    assert jobs["tabulate"] == 1 and jobs["draw_maps"] == 1
    assert not {"pretrain", "trace_tuning", "draw_loss", "train_classifier"} & set(jobs)


def test_new_budget_below_the_trained_end(study):
    rows = [
        {"pretrain": ["ve"], "kimg": [2], "tune": "ect", "tune_kimg": 1, "schedules": ["sigmoid"],
         "samplers": ["one_step"]},
    ]  # fmt: skip
    longer = {"pretrain": {"ve": {"kimg": 4}}}
    both = longer | {"experiments": {"schedules": {"rows": rows}}}
    first = planned(study, both)
    assert first["pretrain"] == 1 and first["tune"] == 1
    trained = snakemake(study, "--configfile", SMOKE, "overlay.yaml")
    assert trained.returncode == 0, trained.stderr
    again = planned(
        study, longer | {"experiments": {"methods": {"rows": [rows[0] | {"kimg": [1]}]}}}
    )
    assert "pretrain" not in again
    below = [rows[0] | {"kimg": [1], "tune_kimg": 3}]
    jobs = planned(study, longer | {"experiments": {"schedules": {"rows": below}}})
    assert jobs["tune"] == 1 and "pretrain" not in jobs


def test_longer_chain_trains_the_new_piece_only(study):
    overlay = {"pretrain": {"ve": {"kimg": 4}}}
    assert "pretrain" not in planned(study, overlay)
    rows = [{"pretrain": ["ve"], "kimg": [4], "samplers": ["heun"]}]
    jobs = planned(study, overlay | {"experiments": {"methods": {"rows": rows}}})
    assert 1 <= jobs["pretrain"] <= 3 and "tune" not in jobs


def test_new_sampler_trains_nothing(study):
    overlay = {
        "samplers": {"euler": {"kind": "euler", "steps": 4, "label": "Euler, 4 NFE"}},
        "experiments": {"methods": {"rows": [
            {"pretrain": ["ve", "flow"], "kimg": [1], "samplers": ["heun", "one_step", "euler"]},
        ]}},
    }  # fmt: skip
    jobs = planned(study, overlay)
    assert jobs["sample"] == 2 and jobs["evaluate"] == 2
    assert not {"pretrain", "tune", "train_classifier"} & set(jobs)


def test_a_start_from_elsewhere(study, written):
    """A checkpoint in EDM's form, imported, tuned, sampled and measured by the rules."""
    model = unet("ddpmpp", 8, 1, 0)
    file = written({"ema": Persistent("EDMPrecond", {"model": model}, sigma_data=0.5)})
    row = {"pretrain": ["edm"], "kimg": [0], "tune": "ect", "tune_kimg": 1}
    row |= {"schedules": ["sigmoid"], "samplers": ["one_step"]}
    overlay = {
        "study": "imported",
        "dataset": {"normalize": "unit"},
        "init": {"edm": {"format": "edm", "file": str(file)}},
        "experiments": {"methods": {"rows": [row]}, **NO_OTHERS},
    }
    (study / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    table = "results/imported/tables/methods.md"
    done = snakemake(study, table, "--configfile", SMOKE, "overlay.yaml")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "| edm " in (study / table).read_text()


def test_starts_of_the_other_formats(study, tmp_path):
    """Bare weights, another study's model, a folder of diffusers; a hub's name is no input file."""
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    from tests.helpers.unet2d import unet as unet2d

    trained = next(results(study).glob("pretrain/ve/**/model.safetensors"))
    weights, about = checkpoint.load(trained)
    files = {name: tmp_path / name for name in ("weights 1.pt", "ours", "a pipe")}
    torch.save({f"module.{key}": value for key, value in weights.items()}, files["weights 1.pt"])
    checkpoint.save(files["ours"], weights, **about | {"shift": 127.5, "scale": 1 / 127.5})
    chain = diffusers.DDPMScheduler()
    diffusers.DDPMPipeline(unet2d(depth=1), chain).save_pretrained(files["a pipe"])
    meaning = {key: about[key] for key in ("process", "parameterization", "c_noise", "sd")}
    starts = {
        "bare": {"format": "state_dict", "file": str(files["weights 1.pt"])}
        | {"network": "small", **meaning},
        "ours": {"format": "ect", "file": str(files["ours"])},
        "pipe": {"format": "diffusers", "file": str(files["a pipe"])},
    }
    row = {"pretrain": list(starts), "kimg": [0], "tune": "ect", "tune_kimg": 1}
    row |= {"schedules": ["sigmoid"], "samplers": ["one_step"]}
    overlay = {
        "study": "formats",
        "dataset": {"normalize": "unit"},
        "init": starts | {"hub": {"format": "diffusers", "file": "owner/name"}},
        "experiments": {"methods": {"rows": [row]}, **NO_OTHERS},
    }
    table = "results/formats/tables/methods.md"
    (study / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    done = snakemake(study, table, "--configfile", SMOKE, "overlay.yaml")
    assert done.returncode == 0, done.stderr[-4000:]
    assert all(f"| {name} " in (study / table).read_text() for name in starts)
    hub = "results/formats/pretrain/hub/s0/k0/model.safetensors"
    done = snakemake(study, hub, "-n", "--configfile", SMOKE, "overlay.yaml")
    assert "import-model diffusers owner/name" in done.stdout + done.stderr


def test_repeats_go_from_the_sampler_to_the_features(study):
    evaluation = {"repeats": 2, "export": ["features"], "metrics": ["fd", "kd", "recall"]}
    jobs = planned(study, {"evaluation": evaluation})
    assert jobs["extract"] == 2 * jobs["evaluate"] > 0
    assert jobs["sample"] == 5  # of the figure
    assert not {"pretrain", "tune", "extract_reference", "export_images"} & set(jobs)
    table = "results/smoke/tables/schedules.csv"
    done = snakemake(study, table, "--configfile", SMOKE, "overlay.yaml")
    assert done.returncode == 0, done.stderr[-4000:]
    header, first, *_ = (study / table).read_text().splitlines()
    row = dict(zip(header.split(","), first.split(",")))
    assert row["recall_mean"] and row["repeats"] == "2" and float(row["fd_repeats_sd"]) > 0
    later = next(results(study).glob("tune/**/repeat-1"))
    names = {path.name for path in later.iterdir()}
    assert names == {"features.json", "features.safetensors"}


def test_png_files_are_made_of_the_images(study):
    folder = "results/smoke/pretrain/ve/s0/k1/one_step/png"
    done = snakemake(study, folder, "--configfile", SMOKE)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(list((study / folder).glob("*.png"))) == 100


def test_weights_put_there_by_hand_are_not_fetched(study):
    overlay = {"features": {"extractor": "inception"}}
    assert planned(study, overlay)["fetch_inception"] == 1
    weights = study / "models" / "inception-2015-12-05.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"")
    assert "fetch_inception" not in planned(study, overlay)


def test_mistake_ends_before_any_job(study):
    (study / "overlay.yaml").write_text("pretrain: {ve: {optimizer: {lr: 1e-4}}}")
    done = snakemake(study, "--configfile", SMOKE, "overlay.yaml")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "pretrain.ve.optimizer.lr: found '1e-4'" in text and "1.0e-4" in text
    assert "Traceback" not in text


def test_the_plan_of_a_finished_study_has_nothing_to_do(study):
    snakemake(study, "--configfile", SMOKE)
    done = warm.run("ect", "plan", SMOKE, "--json", cwd=study)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(jobs["to_do"] == 0 < jobs["in_all"] for jobs in found["jobs"].values())
    assert [hours["of"] for hours in found["hours"]] == ["training", "drawing"]
    assert all(hours["to_do"] == 0 and hours["in_all"] != 0 for hours in found["hours"])


def test_again_from_clean_is_the_same_to_the_byte(study):
    """Tables and models, on one core."""
    assert snakemake(study, "--configfile", SMOKE).returncode == 0
    config = Config.read(load.read(study / "config.yaml", study / SMOKE))
    models = [f"{cell.model.folder}/model.safetensors" for cell in config.all_cells()]
    kinds = ("csv", "md", "tex")
    tables = [f"tables/{name}.{kind}" for name in config.experiments for kind in kinds]
    wanted = [f"results/smoke/{name}" for name in {*models, *tables, "tables/steps.csv"}]
    before = {name: (study / name).read_bytes() for name in wanted}
    shutil.rmtree(study / "results")
    done = snakemake(study, *wanted, "--configfile", SMOKE, "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert before == {name: (study / name).read_bytes() for name in wanted} and len(wanted) > 10
