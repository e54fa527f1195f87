"""The cells of docs/notebook.ipynb run, in order, on a tiny model where they look for it."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ect.training import train
from tests.helpers.runs import PRETRAIN, changed

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


@pytest.mark.parametrize("classes", [0, 10])
def test_the_notebook_runs(digits_file, tmp_path, monkeypatch, classes):
    path = next(line.split('"')[1] for line in CODE[0].splitlines() if line.startswith("MODEL"))
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    train.run(
        changed(PRETRAIN, network__classes=classes, last_kimg=0), digits_file, Path(path).parent
    )
    shown, names = [], {}
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    for code in CODE:
        exec(compile(code, NOTEBOOK.name, "exec"), names)
    assert len(shown) == 2 and names["samples"][1].shape == (10, 8, 8, 1)
    assert all(row.shape == names["clean"].shape and row.dtype == np.uint8 for row in names["rows"])
    plt.close("all")


def test_the_notebook_is_kept_without_outputs():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)
