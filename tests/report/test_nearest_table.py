"""The table and the figure of nearest training images."""

import numpy as np
import pandas as pd
import pytest
import torch

from ect.report import nearest
from ect.runtime import checkpoint
from tests.helpers.reports import Inputs, read_table


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


def test_the_table_holds_least_median_and_share_of_near_images(inputs, tmp_path):
    """The nearest of ten held-out images, at 5, is the limit: 6 of the distances 0 to 9 are up to
    it."""
    nearest.tabulate(inputs.nearest(), tmp_path / "t")
    table = pd.read_csv(tmp_path / "t.csv").set_index("images_of")
    assert list(table.index) == ["generated", "held-out", "training"]
    for space, unit in (("pixels", 0.01), ("features", 0.1)):
        row = table.loc["generated"]
        assert row[f"{space}_least"] == 0 and row[f"{space}_median"] == pytest.approx(4.5 * unit)
        assert row[f"{space}_near_percent"] == 60
        assert table.loc["held-out", f"{space}_near_percent"] == 10
        assert np.isnan(table.loc["training", f"{space}_least"])
    assert (table.loc["generated", "fd_training"], table.loc["generated", "fd_held_out"]) == (
        30,
        31.5,
    )
    assert np.isnan(table.loc["held-out", "fd_held_out"])
    assert np.isnan(table.loc["training", "fd_training"])
    head, _, *rows = read_table(tmp_path / "t.md")
    assert rows[0][:5] == ["generated", "10", "0", "0.0450", "60.0"]
    assert rows[2][-2:] == ["", "2.00"] and head[-1] == "FD to held-out"
    assert "booktabs" not in (tmp_path / "t.tex").read_text()


def test_strips_show_the_nearest_images_above_what_they_are_near_to(inputs):
    found, _ = nearest.load(inputs.nearest(generated=[3, 1, 2, 9, 9, 9, 9, 9, 9, 9]))
    samples, data = inputs.images(), inputs.dataset()
    strips = nearest._strips(found, samples, data, 3)
    assert [label for label, _ in strips] == [
        "generated", "its nearest\ntraining image", "held-out", "its nearest\ntraining image"
    ]  # fmt: skip
    assert np.array_equal(strips[0][1], np.load(samples)["arr_0"][[1, 2, 0]])
    assert [len(images) for _, images in nearest._strips(found, samples, data, 11)] == [10] * 4
    np.savez(inputs.folder / "few.npz", np.load(samples)["arr_0"][:9])
    with pytest.raises(ValueError, match=r"few.npz: 9 images, of which 10 were searched; allowed:"):
        nearest._strips(found, inputs.folder / "few.npz", data, 3)


def test_another_file_is_refused(tmp_path):
    about = {"features": "classifier", "fd": {}, "against": 1}
    checkpoint.save(tmp_path / "other.safetensors", {"a": torch.zeros(3)}, **about)
    with pytest.raises(
        ValueError, match=r"other.safetensors: found a, \.\.\.; allowed: what `find-ne"
    ):
        nearest.tabulate(tmp_path / "other.safetensors", tmp_path / "t")
