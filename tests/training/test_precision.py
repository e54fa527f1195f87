"""fp16: the losses of fp32, steps that are skipped and counted, the same bits after a stop."""

import json

import pytest
import torch

from ect.data.batches import Images
from ect.runtime import checkpoint, distributed, stop
from ect.training import loop, state, train
from tests.helpers.processes import trained
from tests.helpers.runs import PRETRAIN, changed, contents

# As small as possible: processors without fp16 are slow at it.
NETWORK = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
SMALL = changed(PRETRAIN, network=NETWORK, recipe__dropout=0.0)
HALF = changed(SMALL, recipe__precision="fp16")
FIRST = 2.0**26  # a scale at which the first steps overflow


def lines_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def record_of(out):
    return json.loads((out / "run.json").read_text())


def test_fp16_rounds_the_network_and_nothing_else(digits_file, tmp_path):
    """The losses are those of fp32 to float16's 11 bits; weights stay float32, nothing is skipped
    at the usual scale; other precisions do not record skipped steps."""
    losses = []
    for precision in ("fp32", "fp16"):
        out = tmp_path / precision
        train.run(changed(SMALL, recipe__precision=precision), digits_file, out)
        losses.append(torch.tensor([line["loss"] for line in lines_of(out)]))
        weights, _ = checkpoint.load(out / "model.safetensors")
        assert all(value.dtype == torch.float32 for value in weights.values())
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.005, atol=0)
    assert {line["skipped_steps"] for line in lines_of(tmp_path / "fp16")} == {0}
    assert "skipped_steps" not in record_of(tmp_path / "fp32")


@pytest.mark.parametrize("optimizer", ["adam", "radam"])
def test_a_skipped_step_changes_no_weight_and_a_restored_state_goes_on(
    optimizer, digits_file, monkeypatch
):
    """A restored state halves the scale at the same steps, from any step on."""
    monkeypatch.setattr(state, "SCALE", FIRST)
    settings = changed(HALF, recipe__optimizer__name=optimizer, recipe__batch=20)
    images, skips, before, kept = Images(digits_file), 0, None, None
    run, other = state.State(settings, images), state.State(settings, images)
    steps, others = (loop.loop(each, settings, images) for each in (run, other))
    for index in range(16):
        next(steps)
        weights = [weight.clone() for weight in run.network.parameters()]
        after = run.scaler.get_scale(), int(run.skipped)
        if before:
            skipped = after[1] > before[1]
            same = all(map(torch.equal, weights, kept))
            assert skipped == same == (after[0] == before[0] / 2)
            skips += skipped
        before, kept = after, weights
        if index % 2 == 0:
            other.restore({k: v.clone() for k, v in run.tensors().items()}, run.seen)
        else:
            next(others)
            assert other.tensors().keys() == run.tensors().keys()
            assert all(torch.equal(v, run.tensors()[k]) for k, v in other.tensors().items())
    assert 1 < skips < 15  # some were, some were not


def test_fp16_goes_on_with_the_same_bits(digits_file, tmp_path, monkeypatch):
    """Stopped after every step, skipped or not."""
    monkeypatch.setattr(state, "SCALE", FIRST)
    settings = changed(HALF, recipe__batch=125)
    train.run(settings, digits_file, tmp_path / "whole")
    for _ in range(7):
        with pytest.raises(stop.Stopped):
            train.run(settings, digits_file, tmp_path / "run", max_minutes=0)
    train.run(settings, digits_file, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    counts = [record_of(tmp_path / name)["skipped_steps"] for name in ("run", "whole")]
    assert counts[0] == counts[1] > 0


def test_a_scale_that_falls_below_what_fp16_holds_is_a_divergence(
    digits_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(state, "SCALE", 2 * state.LEAST_SCALE)

    def overflow(parameters):
        for weight in parameters:
            weight.grad.fill_(torch.inf)

    monkeypatch.setattr(distributed, "sum_gradients", overflow)
    with pytest.raises(FloatingPointError, match="the gradient is not finite at image 200: lower"):
        train.run(HALF, digits_file, tmp_path / "run")


def test_a_loss_that_is_no_number_is_a_divergence_in_fp16_too(digits_file, tmp_path):
    settings = changed(HALF, recipe__optimizer__lr=1e30)
    with pytest.raises(FloatingPointError, match="the loss is not finite at image"):
        train.run(settings, digits_file, tmp_path / "run")


def half(settings, data, out):
    """A run whose processes end with the same state, or fail."""
    torch.set_default_dtype(torch.float32)
    state.SCALE, advance = FIRST, train._advance

    def advance_and_compare(run, *rest):
        advance(run, *rest)
        distributed.require_same(run.tensors())

    train._advance = advance_and_compare
    train.run(settings, data, out)


def test_several_processes_skip_together(digits_file, tmp_path, monkeypatch):
    """All or none, also if only one has images that overflow; about as often as a single process,
    whose sums are rounded differently."""
    settings = changed(HALF, recipe__batch=50, recipe__microbatch=20)
    assert trained(2, settings, digits_file, tmp_path / "two", half) == [0, 0]
    monkeypatch.setattr(state, "SCALE", FIRST)
    train.run(settings, digits_file, tmp_path / "one")
    counts = [record_of(tmp_path / name)["skipped_steps"] for name in ("one", "two")]
    assert counts[0] > 1 and abs(counts[0] - counts[1]) <= 1
