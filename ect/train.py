"""The loop. Pretraining and tuning are the same; pretraining is the schedule r = 0.

A step depends on (seed, images seen) and on the state before it, and on nothing else, so a run that
was stopped goes on with the bits it would have had.
"""

import functools
import json
import math
import time
from pathlib import Path

import torch
from tqdm import tqdm

from ect import checkpoint, experiment, machine
from ect.data import Images, generator_of, seed_of
from ect.objective import PRIORS
from ect.study import STAGES

SAVE_SECONDS = 60.0
LOG_LINES, LOG_KIMG = 50, 50  # at least so many lines, at most so many thousand images apart
LN_S_BINS = torch.linspace(-6, 4, 11)  # edges of the bins of ln s in metrics.jsonl


class State:
    """What a run is at one moment: network, moving average, optimizer, images seen, and the log."""

    def __init__(self, settings, images):
        recipe = settings["recipe"]
        self.network = experiment.make_network(
            settings["network"], images.shape, recipe["dropout"], settings["seed"]
        )
        self.network.train()
        self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.optimizer = experiment.make_optimizer(recipe["optimizer"], self.network.parameters())
        self.seen, self.lines, self.snapshots = 1000 * settings["first_kimg"], [], {}

    def start_from(self, weights):
        """Begin at given weights, with a fresh optimizer."""
        self.network.load_state_dict(weights)
        self.average = {k: v.clone() for k, v in self.network.state_dict().items()}

    def tensors(self):
        slots = {
            f"{index}.{name}": value
            for index, slot in self.optimizer.state_dict()["state"].items()
            for name, value in slot.items()
        }
        return (
            checkpoint.prefixed("network", self.network.state_dict())
            | checkpoint.prefixed("average", self.average)
            | checkpoint.prefixed("optimizer", slots)
        )

    def snapshot_tensors(self):
        """The snapshots' tensors by name, headed by their number of images."""
        snapshots = (checkpoint.prefixed(seen, weights) for seen, weights in self.snapshots.items())
        return {key: value for tensors in snapshots for key, value in tensors.items()}

    def restore(self, tensors, seen):
        self.network.load_state_dict(checkpoint.within("network", tensors))
        for key, value in checkpoint.within("average", tensors).items():
            self.average[key].copy_(value)
        slots, parameters = {}, list(self.network.parameters())
        for key, value in checkpoint.within("optimizer", tensors).items():
            index, name = key.split(".")
            if value.ndim:  # fused Adam reads moments in the memory format of their parameter
                value = torch.empty_like(parameters[int(index)]).copy_(value)
            slots.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        self.seen = seen

    @torch.no_grad()
    def update_average(self, recipe, size):
        """Exponential moving average with a half-life in images (EDM: with a ramp at the start)."""
        halflife = 1000 * recipe["ema_halflife_kimg"]
        if recipe["ema_ramp"] is not None:
            halflife = min(halflife, recipe["ema_ramp"] * self.seen)
        keep = 0.5 ** (size / max(halflife, 1e-8))
        torch._foreach_lerp_(
            list(self.average.values()), list(self.network.state_dict().values()), 1 - keep
        )


class Meter:
    """Means between two lines of the log, kept on the device until they are read."""

    def __init__(self):
        place = machine.device()
        self.edges = LN_S_BINS.to(place)
        self.sums = torch.zeros(3, device=place)
        self.bins = torch.zeros(2, len(LN_S_BINS) - 1, device=place)

    @torch.no_grad()
    def add(self, terms):
        ones = torch.ones_like(terms.loss)
        self.sums += torch.stack([ones.sum(), terms.loss.sum(), (terms.r == 0).sum()])
        index = torch.bucketize(terms.s.log(), self.edges[1:-1])  # outer bins are open
        self.bins[0].index_add_(0, index, ones)
        self.bins[1].index_add_(0, index, terms.residual)

    def line(self, seen, rate):
        count, loss, zeros = self.sums.tolist()
        counts, residuals = self.bins.tolist()
        return {
            "images": seen,
            "loss": loss / count,
            "learning_rate": rate,
            "share_r_zero": zeros / count,
            "residual_by_ln_s": [b / a if a else None for a, b in zip(counts, residuals)],
        }


def step(state, settings, images, objective, f, total):
    """One update; returns the loss's terms, the images used and the learning rate."""
    recipe, seed, seen = settings["recipe"], settings["seed"], state.seen
    size = min(recipe["batch"], total - seen)
    generator = generator_of(seed, "step", seen)
    place = machine.device()
    x = images.batch(seed, seen, size)
    prior, options = PRIORS[recipe["prior"]["kind"]], recipe["prior"]["options"]
    s = objective.levels(functools.partial(prior, generator, size, **options))
    eps = torch.randn(x.shape, generator=generator)
    x, s, eps = x.to(place), s.to(place), eps.to(place)
    if settings["network"].get("classes"):
        f = f.given(images.batch_labels(seed, seen, size).to(place))

    rate = experiment.learning_rate(recipe["optimizer"], seen, total)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    terms = objective(f, x, eps, s, seen / total, seed_of(seed, "dropout", seen))
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.mean().backward()
    state.optimizer.step()
    state.seen += size
    state.update_average(recipe, size)
    return terms, size, rate


def loop(state, settings, images, save, bar, teacher=None):
    """Train from `state.seen` to the end, logging, keeping snapshots, saving now and then."""
    first, total = 1000 * settings["first_kimg"], 1000 * settings["last_kimg"]
    objective = experiment.make_objective(settings, images.sd, teacher)
    about = experiment.describe(settings, images)
    f = experiment.make_consistency(state.network, objective.process, about)
    marks = _marks(first, total, max(LOG_LINES, (total - first) // (1000 * LOG_KIMG)))
    keeps = _marks(first, total, settings["snapshots"])
    meter, saved = Meter(), time.monotonic()
    while state.seen < total:
        before = state.seen
        terms, size, rate = step(state, settings, images, objective, f, total)
        meter.add(terms)
        bar.update(size)
        if _passed(keeps, before, state.seen):
            state.snapshots[state.seen] = {k: v.clone() for k, v in state.average.items()}
        if _passed(marks, before, state.seen):
            line, meter = meter.line(state.seen, rate), Meter()
            _require_finite(line)
            state.lines.append(line)
            bar.set_postfix_str(f"loss {line['loss']:.4g}")
            if time.monotonic() - saved > SAVE_SECONDS:
                save(state)
                saved = time.monotonic()


def _marks(first, total, count):
    return [first + (total - first) * (i + 1) // count for i in range(count)]


def _passed(marks, before, now):
    return any(before < mark <= now for mark in marks)


def _require_finite(line):
    if not math.isfinite(line["loss"]):
        raise FloatingPointError(
            f"the loss is {line['loss']} at image {line['images']}: lower optimizer.lr, or raise"
            " distance.c; nothing was published"
        )


def run(settings, data, out, resume=None, init=None):
    """Train one cell and publish its artefacts in the folder `out`.

    `resume` is the state of the previous milestone, `init` a model to start from; with neither the
    start is random. Writes model.safetensors (the moving average), state.safetensors,
    snapshots.safetensors, metrics.jsonl and run.json.
    """
    started, out = time.monotonic(), Path(out)
    images = Images(data)
    given, settings = settings, experiment.completed(settings, init, images)
    _require_classes(settings["network"].get("classes", 0), images, data)
    inputs = [path for path in (data, resume, init) if path]
    fingerprint = [STAGES["train"], settings, [machine.digest(path) for path in inputs]]
    work = out / ".work.safetensors"
    state = _begin(settings, images, resume, init, work, fingerprint)
    first, total = state.seen, 1000 * settings["last_kimg"]

    def save(state):
        tensors = state.tensors() | checkpoint.prefixed("snapshot", state.snapshot_tensors())
        checkpoint.save(work, tensors, seen=state.seen, lines=state.lines, fingerprint=fingerprint)

    teacher = None if settings["target"] == "own" else experiment.load_model(init)[0]
    label = "/".join(out.parts[-6:])
    bar = tqdm(
        total=total, initial=first, unit="img", unit_scale=True, desc=label, disable=None
    )  # none where there is no terminal
    with bar:
        loop(state, settings, images, save, bar, teacher)
    seconds = time.monotonic() - started
    publish(state, settings, images, out)
    rate = round((total - first) / seconds, 1)
    checkpoint.write_json(
        out / "run.json", machine.record(given, inputs, started, images_per_second=rate)
    )
    work.unlink(missing_ok=True)


def _require_classes(classes, images, data):
    found = int(images.labels.max()) + 1
    if 0 < classes < found:
        raise ValueError(f"networks: classes is {classes}, but {data} has labels up to {found - 1}")


def _begin(settings, images, resume, init, work, fingerprint):
    """The state to go on from: work in progress if it is this very run's, else the given start."""
    state = State(settings, images)
    if work.exists():
        tensors, about = checkpoint.load(work)
        if about["fingerprint"] == json.loads(json.dumps(fingerprint)):
            state.restore(tensors, about["seen"])
            state.lines = about["lines"]
            for key, value in checkpoint.within("snapshot", tensors).items():
                seen, name = key.split(".", 1)
                state.snapshots.setdefault(int(seen), {})[name] = value
            return state
    if resume:
        tensors, about = checkpoint.load(resume)
        state.restore(tensors, about["seen"])
    elif init:
        state.start_from(checkpoint.load(init)[0])
    return state


def publish(state, settings, images, out):
    """Write the artefacts of a finished run."""
    about = experiment.describe(settings, images)
    checkpoint.save(out / "model.safetensors", state.average, **about)
    checkpoint.save(out / "state.safetensors", state.tensors(), seen=state.seen)
    checkpoint.save(out / "snapshots.safetensors", state.snapshot_tensors(), **about)
    with checkpoint.replacing(out / "metrics.jsonl") as scratch:
        scratch.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in state.lines))
