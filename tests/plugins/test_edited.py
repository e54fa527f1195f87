"""Plugins in the workflow: an edited file runs again what uses it, and nothing else."""

import os
import re
from pathlib import Path

import pytest
import yaml

from tests.helpers import warm
from tests.helpers.plugins import BITS, REST
from tests.helpers.workflow import copy_workflow


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """A copy of the workflow, in which nothing has run."""
    folder = tmp_path_factory.mktemp("plugins")
    copy_workflow(folder)
    return folder


def snakemake(folder, overlay, *words):
    """What Snakemake prints of the smoke study under a changed config."""
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    files = ("--configfile", "workflow/studies/smoke.yaml", "overlay.yaml")
    done = warm.run("snakemake", "--cores", "all", *files, *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def believed(folder, overlay):
    """Create every output, and record every job as done with the present settings."""
    snakemake(folder, overlay, "--touch")
    summary = snakemake(folder, overlay, "--summary").splitlines()
    header = next(i for i, line in enumerate(summary) if line.startswith("output_file\t"))
    for path in (folder / line.split("\t")[0] for line in summary[header + 1 :] if "\t" in line):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9, 1e9))


def planned(folder, overlay):
    """(rule, output folder) of all that a dry run would write again, except the page, which hashes
    the whole config."""
    text = snakemake(folder, overlay, "-n")
    rules = re.findall(r"^rule (\w+):\n(?: +input: .*\n)? +output: ([^,\n]*)", text, re.MULTILINE)
    return {(r, str(Path(output).parent)) for r, output in rules if r != "write_page"}


@pytest.mark.pipeline
def test_an_edited_plugin_runs_again_what_uses_it(workflow):
    (workflow / "maps.py").write_text(BITS)
    (workflow / "rest.py").write_text(REST)
    before = {"schedules": {"unused": {"map": "constant"}}}
    believed(workflow, before)
    assert planned(workflow, before) == set()

    added = {"plugins": ["maps.py", "rest.py"], **before}
    assert planned(workflow, added) == set()
    used = added | {"schedules": {"mine": {"map": "same_ratio"}}}
    figures = "results/smoke/figures"
    assert planned(workflow, used) == {("draw_maps", figures)}  # it shows every schedule
    row = {"pretrain": ["ve"], "kimg": [1], "tune": "ect", "tune_kimg": 1}
    rows = [
        row | {"schedules": ["sigmoid", "mine"], "samplers": ["one_step"]},
        {"pretrain": ["ve"], "kimg": [1], "samplers": ["mine"]},
    ]
    used |= {
        "experiments": {"schedules": {"rows": rows}},
        "samplers": {"mine": {"kind": "straight", "label": "mine", "nfe": 3}},
    }
    tuned = "results/smoke/tune/ve/s0/k1/mine/ect/k1/s0"
    sampled = "results/smoke/pretrain/ve/s0/k1/mine"
    new = {
        ("tune", tuned), ("sample", f"{tuned}/one_step"), ("evaluate", f"{tuned}/one_step"),
        ("tabulate", "results/smoke/tables"), ("draw_experiment", figures),
    }  # fmt: skip
    shown = {("draw_maps", figures), ("draw_curves", figures)}
    drawn = {("sample", sampled), ("evaluate", sampled)}
    assert planned(workflow, used) == new | shown | drawn

    believed(workflow, used)
    assert planned(workflow, used) == set()
    (workflow / "maps.py").write_text(BITS.replace("1e-9", "1e-8"))
    assert planned(workflow, used) == new | shown
    (workflow / "maps.py").write_text(BITS)
    (workflow / "rest.py").write_text(REST + "\n# edited\n")
    report = {("tabulate", "results/smoke/tables"), ("draw_experiment", figures)}
    assert planned(workflow, used) == drawn | report
