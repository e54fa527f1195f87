"""Figures are drawn with a backend of ours, whatever the environment of the job says."""

import os
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
