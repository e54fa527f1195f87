"""The slurm profile on a real SLURM of one node, which these tests install and start: a study runs,
and training runs ended by scancel, SLURM's limit or their own continue where they were."""

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from ect.config import load
from ect.config.config import Config
from ect.runtime import progress
from ect.study.jobs import jobs as all_jobs
from ect.training import train
from tests.helpers.workflow import copy_workflow

ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests" / "slurm_node.sh"
SLEEPER = '''"""A weight that takes its time on a cluster, and says which device SLURM gave."""
import os
import time
from pathlib import Path

from ect.plugins import weight

START = time.time()


@weight
def patient(s, r, sd):
    if job := os.environ.get("SLURM_JOB_ID"):
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        Path("devices", job).write_text(f"{device} {START} {time.time()}")
        time.sleep(1)
    return 1 / s**2
'''
SLOW = {"batch": 20, "weight": "patient"}  # 50 steps, hence 50 seconds, for a thousand images
STUDY = {
    "study": "cluster",
    "plugins": ["sleeper.py"],
    "pretrain": {"ve": {"kimg": 1}, "flow": SLOW | {"batch": 10}},
    "tune": {"ect": SLOW},
    "experiments": {
        "methods": {"rows": [
            {"pretrain": ["ve"], "kimg": [0], "tune": "ect", "tune_kimg": tune_kimg,
             "schedules": ["sigmoid"], "samplers": ["one_step"]}
            for tune_kimg in (1, 2)
        ] + [{"pretrain": ["flow"], "kimg": [1], "samplers": ["one_step"]}]},
        "schedules": None,
        "split": None,
        "solvers": None,
    },
    "figures": {name: {"kimg": 0, "tune_kimg": 1} for name in ("samples", "loss")},
    "search": None,
}  # fmt: skip
CANCELLED, TIMED_OUT = (f"tune/ve/s0/k0/sigmoid/ect/k{kimg}/s0" for kimg in (1, 2))
OWN_LIMIT = "pretrain/flow/s0/k1"
COMMENTS = {  # of their jobs in SLURM
    CANCELLED: "rule_tune_wildcards_ve_0_0_sigmoid_ect_1_0",
    TIMED_OUT: "rule_tune_wildcards_ve_0_0_sigmoid_ect_2_0",
    OWN_LIMIT: "rule_pretrain_wildcards_flow_0_1",
}

pytestmark = pytest.mark.slurm


def node(*words):
    """Run the set-up script; skip the test with the script's reason if that fails."""
    done = subprocess.run(["bash", NODE, *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(done.stderr.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM that runs while the tests of this file do."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    folder = tmp_path_factory.mktemp("node")
    node("install")
    try:
        node("up", folder)
        yield folder
    finally:
        subprocess.run(["bash", NODE, "down", folder], check=False)


def snakemake(folder, *words):
    """Start snakemake in a copy of the workflow, with a profile that its user has edited."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["V"] = "1"  # what Snakemake says itself
    command = [sys.executable, "-m", "snakemake", "--profile", "edited", *words]
    command += ["--configfile", "workflow/studies/smoke.yaml", "study.yaml"]
    with open(folder / "snakemake.log", "w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def copy_of_the_workflow(folder):
    copy_workflow(folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (folder / "sleeper.py").write_text(SLEEPER)
    (folder / "devices").mkdir()
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    resources = profile["set-resources"]
    resources["pretrain"] = resources["pretrain"] | {"runtime": 2}  # 90 seconds for the trainer
    (folder / "edited").mkdir()
    (folder / "edited" / "config.yaml").write_text(yaml.safe_dump(profile))


def jobs():
    """[(SLURM's id of a job, its state, the rule and wildcards of its comment)]."""
    words = ["squeue", "--states=all", "--noheader", "--Format=JobID:20,State:20,Comment:200"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [tuple(line.split()) for line in done.stdout.splitlines()]


def states(comment):
    """The states in which the attempts at a job ended, in order."""
    found = sorted((int(number), state) for number, state, what in jobs() if what == comment)
    return [state for _, state in found]


def under_way(folder, comment, model, process):
    """(SLURM's id, images seen) of a training run, once it has taken ten steps."""
    end = time.monotonic() + 400
    while time.monotonic() < end and process.poll() is None:
        told = progress.read(folder / "results" / "cluster" / model)
        if told and told["images"] >= 200:
            ids = [n for n, state, what in jobs() if (state, what) == ("RUNNING", comment)]
            if ids:
                return ids[0], told["images"]
        time.sleep(0.5)
    raise AssertionError(f"{model} does not run:\n{(folder / 'snakemake.log').read_text()}")


@pytest.fixture(scope="module")
def study(cluster, tmp_path_factory):
    """(folder of the study after it ran, images that the cancelled run had seen). One tuning run
    was cancelled with scancel; the other's limit was lowered to a minute without telling it."""
    folder = tmp_path_factory.mktemp("workflow")
    copy_of_the_workflow(folder)
    metrics = f"{CANCELLED}/one_step/metrics.json"
    models = [f"{model}/model.safetensors" for model in (TIMED_OUT, OWN_LIMIT)]
    process = snakemake(folder, *[f"results/cluster/{name}" for name in (metrics, *models)])
    try:
        late, _ = under_way(folder, COMMENTS[TIMED_OUT], TIMED_OUT, process)
        subprocess.run(["scontrol", "update", f"jobid={late}", "TimeLimit=1"], check=True)
        victim, seen = under_way(folder, COMMENTS[CANCELLED], CANCELLED, process)
        subprocess.run(["scancel", victim], check=True)
        assert process.wait(600) == 0, (folder / "snakemake.log").read_text()[-6000:]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # ends its jobs too
            process.wait(60)
    return folder, seen


def told(folder, comment):
    """What the failed attempts at a job wrote."""
    rule, wildcards = re.fullmatch("rule_([a-z]+)_wildcards_(.*)", comment).groups()
    logs = (folder / ".snakemake/slurm_logs" / f"rule_{rule}" / wildcards).glob("*.log")
    return "".join(path.read_text() for path in logs)


def record(folder, model):
    return json.loads((folder / "results/cluster" / model / "run.json").read_text())


@pytest.mark.parametrize(
    "model, end, why",
    [
        (CANCELLED, "CANCELLED", "stopped by SIGTERM"),
        (TIMED_OUT, "TIMEOUT", "stopped by SIGTERM"),
        (OWN_LIMIT, "FAILED", "stopped after 1.5 minutes"),
    ],
)
def test_a_training_that_was_ended_went_on_from_there(study, model, end, why):
    folder, seen = study
    found = states(COMMENTS[model])
    assert found[0] == end and found[-1] == "COMPLETED" and len(found) >= 2
    stops = re.findall(rf"{why} at image (\d+) of", told(folder, COMMENTS[model]))
    resumed = record(folder, model)["resumed_at"]
    assert int(stops[0]) == resumed[0] > 0
    if model == CANCELLED:
        assert resumed[0] >= seen


def test_nothing_of_a_stopped_training_was_lost(study, monkeypatch):
    """Its bits are those of a run outside SLURM."""
    folder, _ = study
    monkeypatch.chdir(folder)  # with the plugin, which sleeps only on SLURM
    settings = record(folder, CANCELLED)["settings"]
    start = "results/cluster/pretrain/ve/s0/k0/model.safetensors"
    torch.set_num_threads(1)
    train.run(settings, "results/cluster/data/dataset.safetensors", folder / "again", init=start)
    trained = folder / "results" / "cluster" / CANCELLED / "model.safetensors"
    assert (folder / "again" / "model.safetensors").read_bytes() == trained.read_bytes()


def test_each_training_had_its_device(study):
    """One of SLURM's four, and not that of a training run at the same time."""
    folder, _ = study
    had = [path.read_text().split() for path in (folder / "devices").iterdir()]
    assert {device for device, _, _ in had} <= {"0", "1", "2", "3"}
    beside = [
        (device, other)
        for (device, start, end), (other, later, _) in itertools.permutations(had, 2)
        if float(start) <= float(later) < float(end)
    ]
    assert beside and all(device != other for device, other in beside)


def test_more_devices_than_there_are_is_an_error_at_once(study):
    folder, _ = study
    target = f"results/cluster/{CANCELLED}/two_step/samples.npz"
    words = ["--set-resources", "sample:gpu=9", "sample:slurm_partition=gpu", "sample:mem_mb=100"]
    assert snakemake(folder, target, *words).wait(60) != 0
    assert "Requested node configuration is not available" in (folder / "snakemake.log").read_text()


def test_the_kubernetes_profile_by_dry_run(tmp_path):
    """Every job of a study is planned; nothing is asked of a cluster."""
    for name in ("executor_plugin_kubernetes", "storage_plugin_fs"):
        pytest.importorskip(f"snakemake_{name}", reason=f"snakemake_{name} is not installed")
    copy_of_the_workflow(tmp_path)
    words = ["--profile", "workflow/profiles/kubernetes", "--dry-run", "--configfile"]
    command = [sys.executable, "-m", "snakemake", *words, "workflow/studies/smoke.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    study = Config.read(load.read(ROOT / "config.yaml", ROOT / "workflow/studies/smoke.yaml"))
    every = len(all_jobs(study)) + 1  # with `all`
    assert re.search(rf"^total +{every}$", done.stdout + done.stderr, re.MULTILINE)
