"""Figures are drawn whatever the environment of the job says; a full disk is told as one."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.reports import Inputs

NOTEBOOK = "module://matplotlib_inline.backend_inline"  # which the workflow's environment lacks
CODE = """
from ect.report import {module}
from ect.report.figures import plot
plot("samples", {settings!r}, "samples")
"""


@pytest.mark.parametrize("backend, module", [(NOTEBOOK, "figures"), ("nonsense", "maps")])
def test_a_figure_is_drawn_with_the_backend_of_a_notebook(tmp_path, backend, module):
    """Each module of figures may be the first that loads matplotlib."""
    settings = {"rows": [["a", Inputs(tmp_path).images()]], "columns": 2, "width_in": 3}
    env = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", CODE.format(module=module, settings=settings)]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("s*.p*")} == {"samples.pdf", "samples.png"}


def test_a_full_disk_is_told_as_one(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    settings = {"rows": [["a", Inputs(tmp_path).images()]], "columns": 2, "width_in": 3}
    command = [sys.executable, "-B", "-m", "ect", "draw", "samples", json.dumps(settings)]
    done = subprocess.run(
        [*command, "--out", "f"], env=os.environ | {"PYTHONPATH": str(Path.cwd())}, cwd=tmp_path,
        preexec_fn=limit, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("ect draw: ")
    assert "f.pdf: File too large; allowed: " in done.stderr and "Error:" not in done.stderr
    assert not list(tmp_path.glob("*f.p*"))
