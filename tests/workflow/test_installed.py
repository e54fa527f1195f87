"""What people have installed: an environment of Snakemake alone plans every study."""

import os
import re
import subprocess
import sys

import pytest

from ect.config import load
from ect.config.config import Config
from ect.study.jobs import jobs
from tests.helpers.workflow import ROOT, SMOKE

pytestmark = pytest.mark.pipeline
LOCK = (ROOT / "requirements.lock").read_text()


def make_environment(folder, *words):
    """A new environment with what `pip install WORDS` brings, at the lock's versions; its Python.
    The test is skipped with pip's reason where pip finds no packages."""
    pins = re.findall(r"^[a-z0-9.-]+==[^\\\n]+", LOCK, re.MULTILINE)
    (folder / "pins.txt").write_text("\n".join(pins))
    subprocess.run([sys.executable, "-m", "venv", folder / "alone"], check=True)
    python = folder / "alone" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", folder / "pins.txt"]
    done = subprocess.run([*install, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(words)}: {done.stderr.strip()[-200:]}")
    return python


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment of Snakemake alone."""
    return make_environment(tmp_path_factory.mktemp("alone"), "snakemake")


def run(python, *words, cwd=ROOT):
    """A module of that environment, without this one's packages; its exit code and output."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [python, "-m", *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_snakemake_alone_has_none_of_the_jobs_packages(python):
    for name in ("torch", "numpy", "PIL", "safetensors", "pandas"):
        assert f"No module named {name}" in run(python, name)[1]


def test_snakemake_alone_plans_the_smoke_study(python):
    """As many jobs as with the packages of the jobs."""
    code, said = run(python, "snakemake", "-n", "--cores", "1", "--configfile", SMOKE)
    assert code == 0, said[-3000:]
    study = Config.read(load.read(ROOT / "config.yaml", ROOT / SMOKE))
    assert re.search(rf"^total +{len(jobs(study)) + 1}$", said, re.MULTILINE)  # with `all`


def test_what_reads_results_runs_there_too(python):
    code, said = run(python, "ect", "status", SMOKE)
    assert code == 0 and "models:" in said, said
