"""The table and the figure of nearest training images."""

import re

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


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"generated.pixels.distance": [0.1, float("nan")]}, "generated.pixels.distance: found n"),
        ({"held_out.features.distance": [0.1, float("inf")]}, "held_out.features.distance: foun"),
        ({"generated.pixels.distance": [0.1, -1.0]}, "generated.pixels.distance: found -1.0"),
        ({"generated.pixels.distance": [1, 2]}, "generated.pixels.distance: found 2 of int64"),
        ({"generated.pixels.row": [0.5, 1.0]}, "generated.pixels.row: found 2 of float32"),
        ({"held_out.rows": [0, -1]}, "held_out.rows: found -1"),
        ({"fd": {}}, "fd: generated: found null"),
        ({"fd": {"generated": {"training": 1}}}, "fd: generated: found no key 'held_out'"),
        ({"fd": {"generated": {"training": "x", "held_out": 1}}}, "fd: generated: 'training' is"),
        ({"fd": {"generated": {"training": -5, "held_out": 1}}}, "fd: generated: training: 'fd'"),
        ({"against": -1}, "'against' is -1"),
        ({"features": "a\nb"}, "features is 'a"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_have_been_measured_is_refused(inputs, changes, said):
    tensors, about = checkpoint.load(inputs.nearest())
    tensors = {key: tensor[:2] for key, tensor in tensors.items()}
    arrays = {key: torch.tensor(value) for key, value in changes.items() if key in tensors}
    about |= {key: value for key, value in changes.items() if key in about}
    path = inputs.folder / "odd.safetensors"
    checkpoint.save(path, tensors | arrays, **about)
    with pytest.raises(ValueError, match=re.escape(f"odd.safetensors: {said}")):
        nearest.load(path)


@pytest.mark.parametrize(
    "key, split", [("generated.pixels.row", "training"), ("held_out.rows", "test")]
)
def test_rows_that_a_dataset_lacks_are_refused(inputs, key, split):
    found, _ = nearest.load(inputs.nearest())
    found[key] = found[key] + 10**6
    with pytest.raises(ValueError, match=rf"{split} images, of which row 1\d+ was"):
        nearest._strips(found, inputs.images(), inputs.dataset(), 3)
