"""One set of versions: the lock, the conda environment and the project name the same packages."""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import ect
from ect.runtime.record import job_record

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name):
    """The versions of a package in the lock: one, or one for each range of Pythons."""
    return re.findall(rf"^{name}==([^ ]+)", LOCK, re.MULTILINE)


CONDA = yaml.safe_load((ROOT / "envs" / "ect.yaml").read_text())["dependencies"][-1]["pip"]
CONDA_PYTHON = "3.11"  # of envs/ect.yaml, which the first test compares
PINS = {line.partition("==")[0]: line.split()[0].partition("==")[2] for line in CONDA}


def test_the_environment_of_the_jobs_is_written_from_the_lock():
    spec = importlib.util.spec_from_file_location("lock", ROOT / "envs" / "lock.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    written = writer.environment(LOCK, PROJECT)
    assert written == (ROOT / "envs" / "ect.yaml").read_text() and "://" not in written


def test_the_environment_of_the_jobs_is_whole_and_without_snakemake():
    """The dependencies but Snakemake, and all that these need; each with the lock's hashes."""
    wanted = {re.match(r"[a-z0-9-]+", dependency).group() for dependency in PROJECT["dependencies"]}
    assert wanted - set(PINS) == {"snakemake"}
    assert not [name for name in PINS if name.startswith("snakemake") or name == "pulp"]
    assert all(version in locked(name) for name, version in PINS.items())
    assert all("--hash=sha256:" in line and "\n" not in line for line in CONDA)
    for name in PINS:
        assert needed_here(name) <= set(PINS), name


def needed_here(name):
    """What an installed package needs on Linux with Python 3.11; nothing of what is not
    installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        asked = map(Requirement, importlib.metadata.requires(name) or [])
        here = {"python_version": "3.11", "python_full_version": "3.11.0", "extra": ""}
        needed = [r.name for r in asked if r.marker is None or r.marker.evaluate(here)]
        return {re.sub(r"[-_.]+", "-", each).lower() for each in needed}
    return set()


def test_a_record_names_its_environment():
    assert job_record({}, [], 0.0)["environment"] == sys.prefix


def test_every_locked_package_has_hashes_and_no_address():
    packages = re.findall(r"^[a-z0-9.-]+==", LOCK, re.MULTILINE)
    entries = re.split(r"^(?=[a-z0-9.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(packages) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK


def test_every_rule_has_an_environment():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert rules.count("\nrule ") == rules.count('conda:\n        "../../envs/ect.yaml"') > 10


def test_one_version_of_this_work():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["version"] == ect.__version__
    assert cited["license"] == PROJECT["license"]


def test_commits_are_linted_with_the_locks_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    outside = [repo["rev"] for repo in hooks["repos"] if repo["repo"] != "local"]
    assert outside == [f"v{version}" for version in locked("ruff")]


def test_ci_runs_what_people_run():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    called = [
        s["run"].split()[1] for s in jobs["test"]["steps"] if s.get("run", "").startswith("make")
    ]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert called and set(called) <= set(targets)


def test_what_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:ect|tests|workflow|envs)/[\w/.]*)`", text)
    assert len(named) > 10 and all((ROOT / path).exists() for path in named)


def test_the_image_has_the_packages_of_the_lock():
    text = (ROOT / "Dockerfile").read_text()
    assert "COPY requirements.lock" in text and "--require-hashes" in text
    assert f"FROM python:{CONDA_PYTHON}-slim" in text


def test_the_package_is_found_from_any_folder(tmp_path):
    """In the environment that `make` builds; what its records say of the code is this clone's."""
    if Path(sys.prefix).resolve() != ROOT / ".venv":
        pytest.skip("not in an environment that make built")
    code = "import ect; from ect.runtime import record; print(ect.__file__, record.PACKAGE)"
    command = [sys.executable, "-P", "-c", code]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[1] == str(ROOT / "ect"), done.stderr
