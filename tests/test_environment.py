"""One set of versions: the lock, the conda environment and the project name the same packages."""

import re
import tomllib
from pathlib import Path

import yaml

import ect

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name):
    """The versions of a package in the lock: one, or one for each range of Pythons."""
    return re.findall(rf"^{name}==([^ ]+)", LOCK, re.MULTILINE)


def test_conda_pins_are_the_locks():
    blocks = yaml.safe_load((ROOT / "envs" / "ect.yaml").read_text())["dependencies"]
    pins = dict(pin.split("==") for pin in blocks[-1]["pip"])
    wanted = {re.match(r"[a-z0-9-]+", dependency).group() for dependency in PROJECT["dependencies"]}
    assert set(pins) == wanted
    assert all(version in locked(name) for name, version in pins.items())


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
