"""EDM's pretraining, written from its paper (Karras et al. 2022) in plain torch, and ours: the same
weights after 25 steps of Adam. The mean over pixels, in place of EDM's sum, does not follow it."""

import copy

import pytest
import torch

from ect.data.batches import Images
from ect.training import loop
from ect.training.state import State
from tests.helpers.runs import PRETRAIN, changed

STEPS, BATCH, WARMUP, RATE, SIGMA_DATA = 25, 20, 200, 1e-3, 0.5  # WARMUP in images
EDM = changed(
    PRETRAIN,
    recipe__batch=BATCH,
    recipe__dropout=0.0,
    recipe__prior={"kind": "lognormal", "options": {"mean": -1.2, "std": 1.2}},
    recipe__distance={"kind": "sum_squared", "c": 0.0},
    recipe__optimizer__lr=RATE,
    recipe__optimizer__warmup_kimg=WARMUP / 1000,
) | {"sd": SIGMA_DATA}


@pytest.fixture(scope="module")
def images(write_digits):
    """Digits in [-1, 1]: their own sd is 0.75, EDM's sigma_data is not measured."""
    return Images(write_digits("unit"))


def preconditioned(network, y, sigma):
    """D(y; sigma), eq. 7 and table 1."""
    sigma = sigma.view(-1, 1, 1, 1)
    skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    out = sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()
    into = 1 / (sigma**2 + SIGMA_DATA**2).sqrt()
    return skip * y + out * network(into * y, sigma.flatten().log() / 4)


def edm_loss(network, x, noise, sigma):
    """lambda(sigma) |D(x + n; sigma) - x|^2, eq. 2: summed over pixels, averaged over the batch."""
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    spread = sigma.view(-1, 1, 1, 1)
    error = (preconditioned(network, x + spread * noise, sigma) - x) ** 2
    return (weight.view(-1, 1, 1, 1) * error).sum() / len(x)


def edm_trajectory(network, batches):
    """The weights after each of EDM's steps; its rate rises linearly in the images seen."""
    adam = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    weights = []
    for number, (x, noise, sigma) in enumerate(batches):
        adam.param_groups[0]["lr"] = RATE * min(number * BATCH / WARMUP, 1)
        adam.zero_grad()
        edm_loss(network, x, noise, sigma).backward()
        adam.step()
        weights.append(flat(network))
    return weights


def flat(network):
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def our_trajectory(settings, images):
    """(the network at its start, batches (x, noise, sigma), weights after each step) of `loop`."""
    state = State(settings, images)
    start, batches, weights = copy.deepcopy(state.network), [], []
    for _ in loop.loop(state, settings, images):
        seen = state.seen - BATCH
        batches.append(loop.draw_batch(settings, images, Levels, seen, BATCH, slice(0, BATCH))[:3])
        weights.append(flat(state.network))
        if len(weights) == STEPS:
            return start, batches, weights


class Levels:
    """The noise levels of an objective: draws of the prior."""

    @staticmethod
    def levels(draw):
        return draw()


def apart(weights, wanted, start):
    """The greatest distance of two trajectories, each step in parts of the way from the start."""
    start = flat(start)
    pairs = zip(weights[1:], wanted[1:])  # the first step has the rate 0
    return max(float((ours - edm).norm() / (edm - start).norm()) for ours, edm in pairs)


def test_ours_is_edms_trajectory(images):
    start, batches, weights = our_trajectory(EDM, images)
    assert abs(images.sd - SIGMA_DATA) > 0.2
    found = apart(weights, edm_trajectory(copy.deepcopy(start), batches), start)
    assert found < 1e-3


@pytest.mark.parametrize(
    "changes",
    [{"recipe__distance": {"kind": "squared", "c": 0.0}}, {"sd": 0.75}],
    ids=["mean", "measured sd"],
)
def test_neither_the_mean_nor_another_sd_follows_it(changes, images):
    start, batches, weights = our_trajectory(changed(EDM, **changes), images)
    found = apart(weights, edm_trajectory(copy.deepcopy(start), batches), start)
    assert found > 0.1
