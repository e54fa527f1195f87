"""What people have installed: an environment of Snakemake alone plans every study; the wheel brings
a command, its texts and its licence."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import ect
from ect.config import load
from ect.config.config import Config
from ect.study.jobs import jobs
from ect.training import train
from tests.helpers.runs import PRETRAIN, changed
from tests.helpers.workflow import ROOT, SMOKE

pytestmark = pytest.mark.pipeline
LOCK = (ROOT / "requirements.lock").read_text()


def make_environment(folder, *words):
    """A new environment with what `pip install WORDS` brings, at the lock's versions; its Python.
    The test is skipped with pip's reason where pip finds no packages."""
    pins = re.findall(r"^[a-z0-9.-]+==[^\\\n]+", LOCK, re.MULTILINE)
    (folder / "pins.txt").write_text("\n".join(pins))
    bare = [sys.executable, "-m", "venv", "--without-pip", folder / "alone"]
    subprocess.run(bare, check=True)
    python = folder / "alone" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    install = [*pip, "--constraint", folder / "pins.txt", *words]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True)
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


def test_a_verb_that_needs_more_says_so_in_one_line(python):
    code, said = run(python, "ect", "show", "results")
    assert code == 1 and said.startswith("ect show: found no package pandas in "), said
    assert said.count("\n") == 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """(the folder of the installed wheel, a folder elsewhere). It is built with this environment's
    setuptools."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "ect", source / "ect", ignore=shutil.ignore_patterns("__pycache__"))
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", target, source]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return target, tmp_path_factory.mktemp("elsewhere")


def typed(wheel, *words):
    """The output of a command elsewhere, with the installed wheel."""
    target, elsewhere = wheel
    env = os.environ | {"PYTHONPATH": str(target), "PATH": f"{target}/bin:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_every_file_of_the_package(wheel):
    def files(folder):
        found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path.relative_to(folder) for path in found}

    assert files(wheel[0] / "ect") == files(ROOT / "ect")


def test_import_ect_is_light(wheel):
    heavy = {"torch", "numpy", "pandas", "sklearn", "scipy", "snakemake"}
    loaded = typed(wheel, sys.executable, "-c", "import ect, sys; print(*sys.modules)").split()
    assert not heavy & set(loaded)


def test_loading_a_model_needs_no_snakemake_pandas_or_sklearn(wheel):
    code = "import sys; from ect.models.load import load; print(*sys.modules)"
    loaded = set(typed(wheel, sys.executable, "-c", code).split())
    assert "torch" in loaded and not {"snakemake", "pandas", "sklearn"} & loaded


def test_the_command_of_the_wheel_and_the_licence_of_what_it_exports(wheel, tmp_path, digits_file):
    assert typed(wheel, "ect", "--version") == f"ect {ect.__version__}\n"
    run = tmp_path / "pretrain/ve/s0/k1"
    train.run(changed(PRETRAIN, recipe__batch=250), digits_file, run)
    assert "pretrain/ve/s0/k1" in typed(wheel, "ect", "show", str(tmp_path))
    typed(wheel, "ect", "export", f"{run}/model.safetensors", "--out", f"{tmp_path}/shared")
    assert (tmp_path / "shared/ect/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_a_shell_completes_verbs_and_their_options(wheel):
    script = 'eval "$(ect completion bash)"; COMP_WORDS=({}); COMP_CWORD={}; _ect'
    script += "; echo ${{COMPREPLY[@]}}"
    cases = [
        ("ect tabulate-", 1, "tabulate-steps tabulate-paper tabulate-nearest"),
        ("ect export --", 2, "--out --diffusers"),
    ]
    for words, index, found in cases:
        assert typed(wheel, "bash", "-c", script.format(words, index)) == f"{found}\n"
    assert "bashcompinit" in typed(wheel, "ect", "completion", "zsh")
