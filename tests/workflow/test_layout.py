"""The workflow in both layouts, deployed in a folder of its own, and fetched from a repository."""

import os
import re
import shutil
import subprocess

import pytest

from ect.config import load
from ect.config.config import Config
from ect.study.jobs import jobs
from tests.helpers import warm
from tests.helpers.workflow import ROOT, SMOKE, copy_workflow

pytestmark = pytest.mark.pipeline
# As `snakedeploy deploy-workflow` writes it, but for the place of the Snakefile.
DEPLOYED = """
from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


module ect:
    snakefile:
        {snakefile}
    config:
        config


use rule * from ect
"""


def plan(folder, *words, **env):
    """{(rule, its outputs)} of a dry run, and what it says."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | env
    done = warm.run("snakemake", "-n", "--cores", "1", *words, cwd=folder, env=environment)
    said = done.stdout + done.stderr
    return set(re.findall(r"^rule (\w+):\n(?:    input:.*\n)?    output: (.*)$", said, re.M)), said


def deployed(folder, snakefile):
    """A folder as snakedeploy makes it of this repository."""
    for name in ("config", "profiles"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "workflow").mkdir()
    (folder / "workflow" / "Snakefile").write_text(DEPLOYED.format(snakefile=snakefile))
    return folder


def test_both_layouts_plan_the_same_jobs(tmp_path):
    copy_workflow(tmp_path)
    found, _ = plan(tmp_path, "--configfile", SMOKE)
    standard, said = plan(tmp_path, "--snakefile", "workflow/Snakefile", "--configfile", SMOKE)
    study = Config.read(load.read(ROOT / "config.yaml", ROOT / SMOKE))
    assert found == standard and len(found) == len(jobs(study)), said[-2000:]
    assert "Using workflow specific profile profiles/default" in said


@pytest.mark.parametrize("name", ["Snakefile", "workflow/Snakefile"])
def test_a_deployed_folder_plans_the_default_study(name, tmp_path):
    found, said = plan(deployed(tmp_path, f'"{ROOT}/{name}"'))
    assert len(found) == len(jobs(Config.read(load.read(ROOT / "config.yaml")))), said[-2000:]
    assert "Using workflow specific profile profiles/default" in said


@pytest.mark.parametrize(
    "snakefile",
    [
        '"git+file://{folder}/me/ect/workflow/Snakefile@v1"',
        'github("me/ect", path="workflow/Snakefile", tag="v1")',
    ],
    ids=["git+file", "github"],
)
def test_a_module_from_a_repository_takes_the_installed_package(snakefile, tmp_path):
    """Only single files are there. Of a repository on GitHub snakedeploy writes `github(...)` as
    here; git finds it on this machine."""
    repository, installed = tmp_path / "me" / "ect", tmp_path / "installed"
    for folder in (repository, installed):
        folder.mkdir(parents=True)
    copy_workflow(repository)
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    commit = ["commit", "--quiet", "-m", "all"]
    for words in (["init", "--quiet"], ["add", "--all"], commit, ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)
    instead = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://github.com/"}
    instead |= {"GIT_CONFIG_KEY_0": f"url.{tmp_path}/.insteadOf"}
    instead |= {"XDG_CACHE_HOME": f"{tmp_path}/cache"}
    there = deployed(tmp_path / "deployed", snakefile.format(folder=tmp_path))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "ect.py").write_text("raise ModuleNotFoundError  # as if not installed")
    found, said = plan(there, PYTHONPATH=f"{tmp_path}/none", **instead)
    assert not found and "the package ect is neither beside the workflow nor installed" in said
    shutil.copytree(ROOT / "ect", installed / "ect")
    shutil.rmtree(repository / "ect")
    found, said = plan(there, PYTHONPATH=str(installed), **instead)
    assert len(found) == len(jobs(Config.read(load.read(ROOT / "config.yaml")))), said[-2000:]
    assert (there / ".snakemake/ect/ect").resolve() == installed / "ect"
    assert [path.name for path in (there / ".snakemake/ect").iterdir()] == ["ect"]
