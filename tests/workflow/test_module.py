"""The workflow as a module of another one: its own config, its own prefix, another folder."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from ect.config.config import Config
from ect.runs import status
from tests.helpers import warm
from tests.helpers.workflow import OUTER, ROOT, smoke, stand_in_for_conda

REFUSED = {"No log directive defined:", "Mixed rules and functions in same snakefile.:"}

pytestmark = pytest.mark.pipeline


def snakemake(folder, *words, new=False):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = warm.run("snakemake", *words, cwd=folder, env=env | {"PATH": path}, new=new)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def outer(tmp_path_factory):
    """A folder with a workflow that uses this one, and no file of this one."""
    folder = tmp_path_factory.mktemp("outer")
    (folder / "Snakefile").write_text(OUTER.format(root=ROOT))
    (folder / "config.yaml").write_text(yaml.safe_dump({"ect": smoke()}))
    return folder


def test_every_file_lies_below_the_prefix(outer):
    code, text = snakemake(outer, "-n", "-p", "--cores", "1", "--configfile", "config.yaml")
    assert code == 0, text[-3000:]
    places = re.findall(r"[^\s\"'=,\[{]*results/theirs/", text)
    assert len(places) > 500 and set(places) == {"inner/results/theirs/"}


def test_its_jobs_are_those_of_the_study(outer):
    code, text = snakemake(outer, "-n", "--cores", "1", "--configfile", "config.yaml")
    assert code == 0, text[-3000:]
    counts = dict(re.findall(r"^ect_(\w+) +(\d+)$", text, re.MULTILINE))
    rows = status.of_study(Config.read(smoke()))
    assert int(counts["pretrain"]) + int(counts["tune"]) == len(rows)


def test_networks_that_the_config_names_stay_where_they_are(outer):
    config = smoke() | {"features": {"extractor": "inception"}}
    (outer / "inception.yaml").write_text(yaml.safe_dump({"ect": config}))
    code, text = snakemake(outer, "-n", "--cores", "1", "--configfile", "inception.yaml")
    assert code == 0, text[-3000:]
    assert "inner/models" not in text and "models/inception" in text


def test_jobs_run_there(outer):
    wanted = ["inner/results/theirs/data/floor.json", "inner/results/theirs/figures/maps.png"]
    code, text = snakemake(outer, *wanted, "--cores", "1", "--configfile", "config.yaml")
    assert code == 0, text[-3000:]
    assert all((outer / path).stat().st_size > 0 for path in wanted)
    assert sorted(path.name for path in outer.iterdir() if path.suffix == "") == [
        ".snakemake", "Snakefile", "inner",
    ]  # fmt: skip


def test_jobs_run_there_in_an_environment_of_conda(outer, tmp_path, monkeypatch):
    """Without PYTHONPATH, which Snakemake takes from them, and without the packages of a user; a
    file of the folder hides none."""
    programs = stand_in_for_conda(tmp_path)
    seen = 'echo "${PYTHONPATH:-none} $PYTHONNOUSERSITE" >>seen\n'
    activate = programs / "activate"
    activate.write_text(seen + activate.read_text())
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (outer / "matplotlib.py").write_text("raise SystemExit('the wrong one')")
    wanted = ["inner/results/theirs/figures/maps.png", "--force", "--configfile", "config.yaml"]
    code, text = snakemake(outer, *wanted, "--cores", "1", "--use-conda", new=True)
    (outer / "matplotlib.py").unlink()
    assert code == 0 and "Activating conda environment" in text, text[-3000:]
    assert (outer / "seen").read_text().splitlines()[-1] == "none 1"
    (outer / "seen").unlink()


def test_snakemake_finds_nothing_to_object_to_but_what_contributing_refuses():
    _, text = snakemake(ROOT, "--lint")
    found = set(re.findall(r"^    \* (.*)$", text, re.MULTILINE))
    assert found == REFUSED
    contributing = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert all(title.rstrip(".:") in contributing for title in REFUSED)
