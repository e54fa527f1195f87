"""Microbatches are the whole batch: its losses, weights, noise and labels."""

import json

import pytest
import torch

from ect.data.batches import Images
from ect.models import build
from ect.runtime import checkpoint
from ect.training import loop, train
from ect.training.parts import make_objective
from ect.training.state import State
from tests.helpers.runs import PRETRAIN, TUNE, changed


@pytest.fixture(scope="module")
def in_parts(digits_file, tmp_path_factory):
    """{size of a microbatch: (losses of every step, weights)} of runs in double precision with
    dropout, with batches of 64 images, the last of 40."""
    folder, found = tmp_path_factory.mktemp("parts"), {}
    whole = changed(TUNE, recipe__batch=64)
    torch.set_default_dtype(torch.float64)
    for size in (64, 16):
        settings, out = changed(whole, recipe__microbatch=size), folder / str(size)
        train.run(whole if size == 64 else settings, digits_file, out)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses = torch.tensor([json.loads(line)["loss"] for line in lines])
        found[size] = losses, checkpoint.load(out / "model.safetensors")[0]
    torch.set_default_dtype(torch.float32)
    return found


def test_microbatches_are_the_whole_batch(in_parts):
    (wanted, weights), (losses, others) = in_parts[64], in_parts[16]
    assert len(wanted) == 16 and wanted.dtype == torch.float64
    torch.testing.assert_close(losses, wanted, rtol=1e-10, atol=0)
    for name, value in weights.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(others[name], value, rtol=1e-8, atol=1e-10)


def test_microbatches_keep_noise_labels_and_images_in_place(digits_file, monkeypatch):
    """The inputs of the objective are the same in parts as at once."""
    images, given = Images(digits_file), {}
    settings = changed(PRETRAIN, network__classes=10, recipe__dropout=0.0)
    for microbatch in (100, 16):
        whole = changed(settings, recipe__microbatch=microbatch)
        state, seen = State(whole, images), []
        objective = make_objective(whole, images.sd)

        def noted(f, x, eps, s, *rest, objective=objective, seen=seen):
            seen.append((f.label, x, eps, s))
            return objective(f, x, eps, s, *rest)

        noted.levels = objective.levels
        about = build.description(whole, images)
        f = build.make_consistency(state.network, objective.process, about)
        loop.step(state, whole, images, noted, f, 1000)
        given[microbatch] = [torch.cat(parts) for parts in zip(*seen)]
        assert len(seen) == -(-100 // microbatch)
    assert all(torch.equal(a, b) for a, b in zip(given[100], given[16]))
