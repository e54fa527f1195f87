"""A workflow in a folder of its own, and how it is run."""

import os
import shutil
import sys
from pathlib import Path

import yaml
from snakemake.utils import update_config

from tests.helpers import warm

ROOT = Path(__file__).parents[2]
WORKFLOW = ("Snakefile", "config.yaml", "config", "profiles", "workflow", "ect", "envs")


def copy_workflow(folder, *more):
    """Copy the workflow, in which nothing has run, into a folder."""
    for name in (*WORKFLOW, *more):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


SMOKE = "workflow/studies/smoke.yaml"


def snakemake(folder, *words, new=False):
    """`snakemake --cores all WORDS` in a copy of the workflow, with all that Snakemake says itself;
    returns the finished process. It and its jobs are forked (tests/helpers/warm.py), or `new`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "V": "1"}
    return warm.run("snakemake", "--cores", "all", *words, cwd=folder, env=env, new=new)


# Enough of conda for Snakemake: its environments are the one that is active, and the scripts that a
# post-deploy script leaves in them.
CONDA = """#!/bin/sh
case "$*" in
  "info --json") echo '{"conda_prefix": "FOLDER", "platform": "linux-64"}' ;;
  --version) echo conda 26.7.0 ;;
  config*) echo '{"get": {"channel_priority": "strict"}}' ;;
  "env create"*) for last; do :; done; mkdir -p "$last" ;;
esac
"""
ACTIVATE = """
export CONDA_PREFIX="$1"
for script in "$1"/etc/conda/activate.d/*.sh; do [ ! -e "$script" ] || . "$script"; done
"""


def stand_in_for_conda(folder):
    """A folder for the PATH whose `conda` makes empty environments."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "activate").write_text(ACTIVATE)
    (programs / "conda").write_text(CONDA.replace("FOLDER", str(folder)))
    (programs / "conda").chmod(0o755)
    return programs


OUTER = """
module ect:
    snakefile:
        "{root}/Snakefile"
    config:
        config["ect"]
    prefix:
        "inner"


use rule * from ect as ect_*


rule outer:
    default_target: True
    input:
        rules.ect_all.input,
    output:
        "outer.txt",
    shell:
        "touch {{output}}"
"""


def smoke():
    """The config of the smoke study, as another workflow would hold it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load((ROOT / "workflow/studies/smoke.yaml").read_text()))
    return config | {"study": "theirs"}
