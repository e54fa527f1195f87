"""Writes envs/ect.yaml from requirements.lock: python envs/lock.py (`make lock` calls it).

The environment of the jobs: all packages that the project's dependencies need on Python 3.11, and
the extras that a study's images or features may need, with the lock's versions and hashes; without
Snakemake, which plans jobs, and what only it needs.
"""

import re
import tomllib
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_name("ect.yaml")
PYTHON = "3.11"
NOT_OF_JOBS = {"snakemake"}
EXTRAS = ("efficientnet", "parquet")  # of jobs
SYSTEMS = [
    {"sys_platform": system, "platform_machine": machine}
    for system in ("linux", "darwin")
    for machine in ("x86_64", "aarch64", "arm64")
]  # fmt: skip
HEADER = f"""\
# The environment of every rule under --use-conda: the lock's packages for Python {PYTHON}, without
# Snakemake. Written by `make lock`. torch comes from pip: its builds there carry CUDA.
channels:
  - conda-forge
dependencies:
  - python={PYTHON}
  - pip
  - pip:
"""


def entries(lock):
    """[(name, the lines of its pin and hashes, {what needs it})] of the text of a lock, those for
    Python 3.11 on Linux or macOS."""
    found = []
    for text in re.split(r"^(?=[a-z0-9.-]+==)", lock, flags=re.MULTILINE)[1:]:
        lines = [line.strip(" \\") for line in text.splitlines()]
        pin = [line for line in lines if line and not line.startswith("#")]
        needed_by = {
            line.strip("# ").removeprefix("via ") for line in lines if line.startswith("#")
        }
        if _installed(pin[0].partition(";")[2].strip()):
            found.append((pin[0].partition("==")[0], pin, needed_by))
    return found


def _installed(marker):
    version = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    return not marker or any(Marker(marker).evaluate(version | system) for system in SYSTEMS)


def of_jobs(lock, project):
    """The entries of a lock that jobs need: the project's dependencies, what these need, and so
    on."""
    extras = [text for name in EXTRAS for text in project["optional-dependencies"][name]]
    named = {re.match(r"[a-z0-9-]+", text).group() for text in project["dependencies"] + extras}
    needed, every = named - NOT_OF_JOBS, entries(lock)
    while True:
        more = {name for name, _, needed_by in every if needed_by & needed} - needed - NOT_OF_JOBS
        if not more:
            return [entry for entry in every if entry[0] in needed]
        needed |= more


def environment(lock, project):
    """The text of ect.yaml."""
    items = ["\n".join(f"        {line}" for line in pin) for _, pin, _ in of_jobs(lock, project)]
    return HEADER + "".join(f"      - >-\n{item}\n" for item in items)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    FILE.write_text(environment((ROOT / "requirements.lock").read_text(), project))
