"""Tables of replicates: n counts them, and nothing else beside them."""

import pandas as pd
import pytest

from ect.report import tables
from tests.helpers.reports import Inputs

VALUES = [20.0, 26.0, 23.0]


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


def replicate(inputs, index, fd, kimg=50, tune=50):
    return inputs.replicate("one_step", fd, index, kimg=kimg, schedule="sigmoid", tune=tune)


def test_n_counts_replicates(inputs, tmp_path):
    paths = [replicate(inputs, index, fd) for index, fd in enumerate(VALUES)]
    tables.tabulate("split", paths, tmp_path / "t", inputs.floor())
    row = pd.read_csv(tmp_path / "t.csv").iloc[0]
    assert (row["n"], row["fd_mean"], row["fd_sd"], row["fd_min"]) == (3, 23.0, 3.0, 20.0)
    assert "Mean ± sd over replicates" in (tmp_path / "t.md").read_text()


def test_tuning_seeds_are_no_replicates(inputs, tmp_path):
    alone = inputs.cell("one_step", 21.0, kimg=50, schedule="sigmoid", tune=50, seed=1)
    paths = [replicate(inputs, index, fd) for index, fd in enumerate(VALUES)]
    with pytest.raises(ValueError, match="seed 1 of tuning alone, beside replicates"):
        tables.tabulate("split", [*paths, alone], tmp_path / "t")
    with pytest.raises(ValueError, match="in another file too"):
        tables.tabulate("split", [*paths, replicate(inputs, 2, 9.0)], tmp_path / "t")


@pytest.mark.parametrize("found", ["two", None, 1.5])
def test_a_replicate_is_a_number(inputs, tmp_path, found):
    cell = inputs.cell_of("one_step", 50, "sigmoid", 50) | {"replicate": found}
    with pytest.raises(ValueError, match=r"'replicate' is .* allowed: a whole number"):
        tables.tabulate("split", [inputs.metrics(20.0, cell)], tmp_path / "t")
