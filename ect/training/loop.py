"""The loop. Pretraining and tuning are the same; pretraining is the schedule r = 0.

A step depends on (seed, images seen) and on the state before it, and on nothing else, so a run that
was stopped and resumed gives the same bits as one that was not. Several processes (see
`ect/runtime/distributed.py`) take one step together: the noise, noise level, image, augmentation
and dropout masks at an index of the whole batch are the same for any number of processes.
"""

import functools

import numpy as np
import torch

from ect.data.trajectories import Trajectories
from ect.models import build
from ect.networks.dropout import Masks
from ect.objective import PRIORS, Terms
from ect.runtime import device, distributed
from ect.runtime.seeds import generator_of, seed_of
from ect.runtime.versions import setting
from ect.training import average
from ect.training.augment import augmented
from ect.training.log import Meter
from ect.training.parts import (
    compiled,
    is_pretraining,
    learning_rate,
    make_objective,
    require_gap,
    require_gap_now,
)

LOG_LINES, LOG_KIMG = 50, 50  # at least so many lines, at most so many thousand images apart


def step(state, settings, images, objective, f, total):
    """One update; returns the loss's terms, the flag of `State.take_step` (still on the device),
    and the learning rate."""
    recipe, seen = settings["recipe"], state.seen
    size = min(recipe["batch"], total - seen)
    share = distributed.slice_of(size)
    x, eps, s, label = draw_batch(settings, images, objective, seen, size, share)
    x, told = augmented(settings, seen + share.start, x)
    f = f.conditioned_on(label).augmented(told)

    rate = learning_rate(recipe["optimizer"], seen, total)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    terms, rows = [], np.arange(size)[share]
    seed = seed_of(settings["seed"], "dropout", seen)
    for part in _parts(len(x), setting(recipe, "microbatch") or size):
        with device.precision(setting(recipe, "precision")):
            given = x[part], eps[part], s[part], seen / total
            part_terms = objective(f.of(part), *given, Masks(seed, rows[part]))
        loss = part_terms.loss.mean() * (len(part_terms.loss) / size)
        state.scaler.scale(loss).backward()
        terms.append([term.detach() for term in part_terms])
    distributed.sum_gradients(state.network.parameters())
    whole = Terms(*distributed.all_gather([torch.cat(term) for term in zip(*terms)], size))
    fine = state.take_step(whole.loss.mean())
    state.seen += size
    weights = state.network.state_dict()
    average.advance(state.averages, recipe, weights, state.seen, size)
    if state.target is not None:
        mu = average.of_target(settings, seen / total)
        average.update(state.target.state_dict(), weights, mu)
    return whole, fine, rate


def draw_batch(settings, images, objective, seen, size, share):
    """Images x (B, C, H, W), noise eps like x, noise levels s (B,), and class labels (B,) or None:
    the `share` of a batch of `size` that belongs to this process. All of it depends on (seed,
    images seen) alone. x, eps and the labels are on the device; s, which decides what is computed,
    stays on the CPU. In mid-training all four are those of points of solved trajectories."""
    prior, seed = settings["recipe"]["prior"], settings["seed"]
    if isinstance(images, Trajectories):
        x, eps, s, label = images.draw(seed, seen + share.start, share.stop - share.start)
        label = device.to_device(label) if setting(settings["network"], "classes") else None
        return device.to_device(x), device.to_device(eps), s, label
    generator = generator_of(seed, "step", seen)
    draw = functools.partial(PRIORS[prior["kind"]], generator, size, **prior["options"])
    s = objective.levels(draw)[share]
    first, count = seen + share.start, share.stop - share.start
    x = images.batch(seed, first, count)
    eps = torch.randn((size, *x.shape[1:]), generator=generator)[share]
    label = None
    if setting(settings["network"], "classes"):
        label = device.to_device(images.batch_labels(seed, first, count))
    return device.to_device(x), device.to_device(eps), s, label


def _parts(size, most):
    """A batch in parts of at most `most` images, whose gradients add up: less memory and the same
    step."""
    return [slice(first, min(first + most, size)) for first in range(0, size, most)]


def loop(state, settings, images, teacher=None):
    """Train from `state.seen` to the end, logging and keeping snapshots. Yields after each step,
    where a run can be saved, and stopped."""
    total = 1000 * settings["last_kimg"]
    about = build.description(settings, images)
    pixels = {key: about[key] for key in ("shift", "scale")}
    objective = make_objective(settings, about["sd"], teacher, pixels)
    require_gap(objective, settings)
    f = build.make_consistency(state.network, objective.process, about)
    if state.target is not None:
        objective.averaged = build.make_consistency(state.target, objective.process, about)
    if setting(settings["recipe"], "compile"):
        f = compiled(f, objective)
    if is_pretraining(settings):
        f = f.denoiser()
    marks, keeps = _marks(settings, _log_lines(settings)), _marks(settings, settings["snapshots"])
    while state.seen < total:
        before = state.seen
        terms, fine, rate = step(state, settings, images, objective, f, total)
        state.meter.add(terms, fine, state.seen)
        if _passed(keeps, before, state.seen):
            state.keep_snapshot()
        if _passed(marks, before, state.seen):
            state.meter.check()
            require_gap_now(objective, terms, state.seen, settings)
            state.lines.append(state.meter.line(state.seen, rate) | skipped(state))
            state.meter = Meter()
        yield


def skipped(state):
    """The entry of the log and of run.json that only fp16 has."""
    return {"skipped_steps": int(state.skipped)} if state.scaler.is_enabled() else {}


def _log_lines(settings):
    return max(LOG_LINES, (settings["last_kimg"] - settings["first_kimg"]) // LOG_KIMG)


def _marks(settings, count):
    first, total = 1000 * settings["first_kimg"], 1000 * settings["last_kimg"]
    return [first + (total - first) * (i + 1) // count for i in range(count)]


def step_ends(settings, marks):
    """The images at the ends of the steps that pass these marks, each once."""
    first, total = 1000 * settings["first_kimg"], 1000 * settings["last_kimg"]
    batch = settings["recipe"]["batch"]
    ends = {first - (first - mark) // batch * batch for mark in marks if first < mark <= total}
    return sorted({min(end, total) for end in ends})


def written_by(settings, seen):
    """(images of the lines in the log, images of the snapshots) of a run at image `seen`."""
    counts = _log_lines(settings), settings["snapshots"]
    ends = (step_ends(settings, _marks(settings, count)) for count in counts)
    logged, kept = ([end for end in one if end <= seen] for one in ends)
    return logged, kept


def _passed(marks, before, now):
    return any(before < mark <= now for mark in marks)
