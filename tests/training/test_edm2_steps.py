"""ECT's ImageNet recipe and EDM2's pretraining loss, from their formulas: the loss, the rate, whole
steps of Adam on weights forced to magnitude 1, and the averages; numpy but for gradients."""

import math

import numpy as np
import pytest
import torch

from ect.data.batches import Images
from ect.models import build
from ect.networks.dropout import Masks
from ect.networks.edm2 import Layer
from ect.runtime.seeds import seed_of
from ect.training import loop, parts
from ect.training.state import State
from tests.helpers.runs import PRETRAIN, TUNE, changed

BATCH, RATE, AFTER, SD, C = 16, 1e-3, 20, 0.5, 0.06  # the rate falls after AFTER images
NETWORK = TUNE["network"] | {"architecture": "edm2", "channels": 16}
STDS = [0.05, 0.01, 0.1]
OPTIMIZER = {
    "name": "adam", "lr": RATE, "betas": [0.9, 0.99], "warmup_kimg": 0.0, "decay_from": 1.0,
    "lr_final": 0.0, "decay": "inverse_sqrt", "decay_kimg": AFTER / 1000,
}  # fmt: skip
ECT = changed(
    TUNE,
    network=NETWORK,
    recipe__batch=BATCH,
    recipe__prior={"kind": "lognormal", "options": {"mean": -0.8, "std": 1.6}},
    recipe__distance={"kind": "huber", "c": C},
    recipe__weight="edm",
    recipe__optimizer=OPTIMIZER,
    recipe__ema_std=STDS,
    recipe__dropout=0.4,
    recipe__dropout_at=4,
    schedule={"map": "sigmoid", "options": {"q": 4.0, "stages": 4}, "clock": "noise"},
) | {"sd": SD}
EDM2 = changed(
    PRETRAIN,
    network=NETWORK | {"uncertainty": True},
    recipe__batch=BATCH,
    recipe__distance={"kind": "sum_squared", "c": 0.0},
    recipe__optimizer=OPTIMIZER | {"warmup_kimg": 0.1},
    recipe__dropout=0.0,
) | {"sd": SD}


class Levels:
    levels = staticmethod(lambda draw: draw())


@pytest.fixture(scope="module")
def images(write_digits):
    return Images(write_digits("unit"))


def started(settings, images):
    """A state whose gains are away from 0, where a network of EDM2 starts."""
    state = State(settings, images)
    weights, generator = state.network.state_dict(), torch.Generator().manual_seed(0)
    moved = {k: torch.randn((), generator=generator) for k in weights if k.endswith("gain")}
    state.start_from(weights | moved)
    return state


def batch(settings, images, seen):
    return loop.draw_batch(settings, images, Levels, seen, BATCH, slice(0, BATCH))[:3]


def parts_of(settings, state):
    """(objective, f) of a run."""
    objective, about = parts.make_objective(settings, SD), settings | {"c_in": "scaled", "sd": SD}
    return objective, build.make_consistency(state.network, objective.process, about)


def denoised(network, x, sigma):
    """D(x; sigma) of EDM, in torch for its gradient."""
    s = sigma.view(-1, 1, 1, 1)
    root = (s**2 + SD**2).sqrt()
    out = network(x / root, sigma.log() / 4)
    return (SD / root) ** 2 * x + s * SD / root * out


def ect_loss(network, x, eps, t, seed):
    """Its mean over a batch in the first stage: q = 4, r = t (1 - (1 + 8 sigmoid(-t)) / 4) >= 0;
    weight 1 / t^2 + 1 / sd^2; sqrt(|.|^2 + c^2) - c; both sides with the same dropout masks."""
    r = (t * (1 - (1 + 8 / (1 + t.exp())) / 4)).clamp(min=0)
    spread = [level.view(-1, 1, 1, 1) for level in (t, r)]
    with Masks(seed).applied():
        found = denoised(network, x + spread[0] * eps, t)
    with torch.no_grad(), Masks(seed).applied():
        aim = denoised(network, x + spread[1] * eps, r.clamp(min=1e-6))
    aim = torch.where(spread[1] > 0, aim, x)
    distance = ((found - aim).square().flatten(1).sum(1) + C**2).sqrt() - C
    assert 0 < (r > 0).sum() < BATCH  # both kinds of targets take part
    return (distance * (t**-2 + SD**-2)).mean()


def edm2_loss(network, x, eps, t, seed):
    """sum over pixels of lambda / exp(u) |D - x|^2 + u, over the batch's size."""
    u = network.uncertainty(t.log() / 4).view(-1, 1, 1, 1)
    weight = ((t**2 + SD**2) / (t * SD) ** 2).view(-1, 1, 1, 1)
    found = denoised(network, x + t.view(-1, 1, 1, 1) * eps, t)
    return (weight / u.exp() * (found - x) ** 2 + u).sum() / len(x)


class Reference:
    """Adam (0.9, 0.99), forced weights and power averages in numpy, as printed."""

    def __init__(self, network):
        self.weights = {k: v.detach().double().numpy() for k, v in network.named_parameters()}
        layers = {name for name, module in network.named_modules() if isinstance(module, Layer)}
        self.forced = {f"{name}.weight" for name in layers}
        self.means = {k: (np.zeros_like(v), np.zeros_like(v)) for k, v in self.weights.items()}
        self.count, self.seen, self.averages = 0, 0, [None] * len(STDS)

    def step(self, gradients, rate):
        self.count, self.seen = self.count + 1, self.seen + BATCH
        for name, slope in gradients.items():
            first, second = self.means[name]
            first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
            self.means[name] = first, second
            up, down = first / (1 - 0.9**self.count), second / (1 - 0.99**self.count)
            moved = self.weights[name] - rate * up / (np.sqrt(down) + 1e-8)
            if name in self.forced:
                axes = tuple(range(1, moved.ndim))
                moved = moved / (1e-4 + np.sqrt((moved**2).mean(axes, keepdims=True)))
            self.weights[name] = moved
        for index, std in enumerate(STDS):
            roots = np.roots([1, 7, 16 - std**-2, 12 - std**-2])
            beta = (1 - BATCH / self.seen) ** (roots.real.max() + 1)
            before = self.averages[index] or self.weights
            self.averages[index] = {
                k: beta * before[k] + (1 - beta) * v for k, v in self.weights.items()
            }


@pytest.mark.parametrize(
    "settings, formula", [(ECT, ect_loss), (EDM2, edm2_loss)], ids=["ect", "edm2"]
)
def test_whole_steps_are_those_of_the_formulas(settings, formula, images):
    state = started(settings, images)
    reference, recipe = Reference(state.network), settings["recipe"]
    objective, f = parts_of(settings, state)
    for number in range(4):
        seen = number * BATCH
        x, eps, t = batch(settings, images, seen)
        network = started(settings, images).network
        network.load_state_dict(state.network.state_dict())
        loss = formula(network, x, eps, t, seed_of(settings["seed"], "dropout", seen))
        loss.backward()
        slopes = {
            k: v.grad.double().numpy() for k, v in network.named_parameters() if v.grad is not None
        }
        rate = RATE / math.sqrt(max(seen / AFTER, 1))
        if warmup := 1000 * recipe["optimizer"]["warmup_kimg"]:
            rate *= min(seen / warmup, 1)
        reference.step(slopes, rate)
        terms, _, ours = loop.step(state, settings, images, objective, f, 10_000)
        assert terms.loss.mean().item() == pytest.approx(loss.item(), rel=1e-4)
        assert ours == pytest.approx(rate)
        for name, value in state.network.named_parameters():
            wanted = torch.from_numpy(np.asarray(reference.weights[name])).float()
            torch.testing.assert_close(value.detach(), wanted, rtol=1e-4, atol=2e-5)
    if settings is ECT:
        for found, wanted in zip(state.averages, reference.averages, strict=True):
            for name, value in wanted.items():
                value = torch.from_numpy(np.asarray(value)).float()
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5)


def test_both_sides_of_the_loss_see_the_same_weights(images):
    """Where r is all but t the loss is all but 0, and evaluating changes no weight."""
    state = started(ECT, images)
    before = {k: v.clone() for k, v in state.network.state_dict().items()}
    settings = changed(ECT, schedule__map="constant", schedule__options={"q": 2.0, "stages": 23})
    objective, f = parts_of(settings, state)
    x, eps, t = batch(ECT, images, 0)
    terms = objective(f, x, eps, t, 0.999, Masks(7))
    assert terms.loss.abs().max() < 1e-3 and (terms.r > 0).all()
    assert all(torch.equal(v, before[k]) for k, v in state.network.state_dict().items())


def test_tuning_leaves_the_uncertainty_alone(images):
    settings = changed(ECT, network=NETWORK | {"uncertainty": True})
    state = started(settings, images)
    before = state.network.uncertainty.linear.weight.clone()
    loop.step(state, settings, images, *parts_of(settings, state), 10_000)
    torch.testing.assert_close(state.network.uncertainty.linear.weight, before, atol=1e-6, rtol=0)
    assert state.network.uncertainty.linear.weight.grad is None
    again = State(settings, images)
    again.restore(state.tensors(), BATCH)  # without moments of what is not trained
    assert again.tensors().keys() == state.tensors().keys()


def test_at_its_best_the_uncertainty_is_the_logarithm_of_the_loss(images):
    """d/du (w d / exp(u) + n u) = 0 at exp(u) = w d / n."""
    state = started(EDM2, images)
    objective, f = parts_of(EDM2, state)
    x, eps, t = batch(EDM2, images, 0)
    objective.uncertain = False
    plain = objective(f, x, eps, t, 0.0).loss.detach()
    objective.uncertain, u = True, (plain / x[0].numel()).log().requires_grad_()
    f.uncertainty = lambda time: u
    objective(f, x, eps, t, 0.0).loss.sum().backward()
    assert u.grad.abs().max() < 1e-3 * x[0].numel()


LIMIT = changed(
    ECT,
    network=NETWORK | {"uncertainty": True},
    recipe__distance={"kind": "squared", "c": 0.0},
    schedule={"map": "continuous", "options": {"warmup": 0.5, "c": 0.1}, "clock": "noise"},
)
ADAPTIVE = changed(LIMIT, recipe__adaptive=True)


def test_the_weight_that_the_limit_learns_is_one_over_its_loss(images):
    """w d / exp(u) + u, at its least where exp(u) = w d; the network's gradient is that of the
    plain loss over exp(u), and u has one."""
    state = started(ADAPTIVE, images)
    objective, f = parts_of(ADAPTIVE, state)
    x, eps, t = batch(ADAPTIVE, images, 0)
    weight = state.network.uncertainty.linear.weight
    found = objective(f, x, eps, t, 0.3, Masks(7)).loss
    found.mean().backward()
    assert weight.grad.abs().max() > 0
    objective.adaptive = False
    plain = objective(f, x, eps, t, 0.3, Masks(7)).loss.detach()
    u = f.uncertainty(objective.process.time(t)).detach()
    assert u.abs().max() > 1e-3
    torch.testing.assert_close(found.detach(), plain / u.exp() + u)
    objective.adaptive, best = True, plain.log().requires_grad_()
    f.uncertainty = lambda time: best
    objective(f, x, eps, t, 0.3, Masks(7)).loss.sum().backward()
    assert best.grad.abs().max() < 1e-5


def test_a_step_of_the_limit_trains_its_weight_if_asked_and_goes_on_from_it(images):
    for settings, moved in ((LIMIT, False), (ADAPTIVE, True)):
        state = started(settings, images)
        before = state.network.uncertainty.linear.weight.clone()
        loop.step(state, settings, images, *parts_of(settings, state), 10_000)
        change = (state.network.uncertainty.linear.weight - before).abs().max()
        assert (change > 1e-4) == moved
        again = State(settings, images)
        again.restore(state.tensors(), BATCH)
        assert again.tensors().keys() == state.tensors().keys()


def test_a_network_without_uncertainty_learns_no_weight():
    with pytest.raises(ValueError, match="adaptive is true, the network has no uncertainty; all"):
        parts.make_objective(changed(ADAPTIVE, network=NETWORK), SD)


@pytest.mark.parametrize("total", [100, 10**6])
@pytest.mark.parametrize(
    ("seen", "wanted"), [(0, 0.0), (5, 0.5), (10, 1.0), (40, 1.0), (160, 0.5), (4000, 0.1)]
)
def test_the_rate_falls_as_one_over_the_root_wherever_the_run_ends(seen, wanted, total):
    options = OPTIMIZER | {"lr": 2.0, "warmup_kimg": 0.01, "decay_kimg": 0.04}
    assert parts.learning_rate(options, seen, total) == pytest.approx(2 * wanted)
