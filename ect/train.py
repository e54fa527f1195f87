"""The loop. Pretraining and tuning are the same; pretraining is the schedule r = 0.

A step depends on (seed, images seen) and on the state before it, and on nothing else, so a run that
was stopped goes on with the bits it would have had. Several processes (see `ect/parallel.py`) take
the step of one: noise, levels and images belong to their places in the whole batch.
"""

import functools
import json
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from tqdm import tqdm

from ect import checkpoint, experiment, machine, parallel, progress, running
from ect.data import Images, generator_of, seed_of
from ect.meter import Diverged, Meter
from ect.objective import PRIORS, Terms
from ect.state import State
from ect.study import STAGES

SAVE_SECONDS, SAVING_SHARE = 60.0, 0.02  # of the time, at most
LOG_LINES, LOG_KIMG = 50, 50  # at least so many lines, at most so many thousand images apart
ARTEFACTS = ("model.safetensors", "state.safetensors", "snapshots.safetensors", "metrics.jsonl")


def step(state, settings, images, objective, f, total):
    """One update; returns the loss's terms, whether all is well (still on the device), and the
    learning rate."""
    recipe, seed, seen = settings["recipe"], settings["seed"], state.seen
    size = min(recipe["batch"], total - seen)
    generator = generator_of(seed, "step", seen)
    mine = parallel.slice_of(size)
    first, count = seen + mine.start, mine.stop - mine.start
    x = images.batch(seed, first, count)
    prior, options = PRIORS[recipe["prior"]["kind"]], recipe["prior"]["options"]
    s = objective.levels(functools.partial(prior, generator, size, **options))[mine]
    eps = torch.randn((size, *x.shape[1:]), generator=generator)[mine]
    x, eps = map(machine.sent, (x, eps))  # s decides what is computed, and stays where it is
    if settings["network"].get("classes"):
        f = f.given(machine.sent(images.batch_labels(seed, first, count)))

    rate = experiment.learning_rate(recipe["optimizer"], seen, total)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    parts = []
    for part in _parts(count, recipe.get("microbatch", size)):
        dropout_seed = seed_of(seed, "dropout", first + part.start)
        some = f if f.label is None else f.given(f.label[part])
        with machine.precision(recipe.get("precision", "fp32")):
            terms = objective(some, x[part], eps[part], s[part], seen / total, dropout_seed)
        state.scaler.scale(terms.loss.mean() * (len(terms.loss) / size)).backward()
        parts.append([term.detach() for term in terms])
    parallel.add_up(state.network.parameters())
    terms = Terms(*parallel.gathered([torch.cat(term) for term in zip(*parts)], size))
    fine = state.take_step(terms.loss.mean())
    state.seen += size
    state.update_average(recipe, size)
    return terms, fine, rate


def _parts(size, most):
    """A batch in parts of at most so many images, whose gradients add up: less memory, the same
    step, but for the masks of dropout, which are drawn for each part (and for each process)."""
    return [slice(first, min(first + most, size)) for first in range(0, size, most)]


def loop(state, settings, images, teacher=None):
    """Train from `state.seen` to the end, logging and keeping snapshots. Yields after each step,
    where a run can be saved, and stopped."""
    first, total = 1000 * settings["first_kimg"], 1000 * settings["last_kimg"]
    objective = experiment.make_objective(settings, images.sd, teacher)
    about = experiment.describe(settings, images)
    f = experiment.make_consistency(state.network, objective.process, about)
    marks = _marks(first, total, max(LOG_LINES, (total - first) // (1000 * LOG_KIMG)))
    keeps = _marks(first, total, settings["snapshots"])
    while state.seen < total:
        before = state.seen
        terms, fine, rate = step(state, settings, images, objective, f, total)
        state.meter.add(terms, fine, state.seen)
        if _passed(keeps, before, state.seen):
            state.snapshots[state.seen] = {k: v.clone() for k, v in state.average.items()}
        if _passed(marks, before, state.seen):
            state.meter.check()
            state.lines.append(state.meter.line(state.seen, rate) | _skipped(state))
            state.meter = Meter()
        yield


def _skipped(state):
    """What a log and run.json say of fp16 beside the rest."""
    return {"skipped_steps": int(state.skipped)} if state.scaler.is_enabled() else {}


def _marks(first, total, count):
    return [first + (total - first) * (i + 1) // count for i in range(count)]


def _passed(marks, before, now):
    return any(before < mark <= now for mark in marks)


@machine.repeatable()
def run(
    settings, data, out, resume=None, init=None, save_seconds=None, max_minutes=None, hold=False
):
    """Train one cell and publish its artefacts in the folder `out`.

    `resume` is the state of the previous milestone, `init` a model to start from; with neither the
    start is random. Writes model.safetensors (the moving average), state.safetensors,
    snapshots.safetensors, metrics.jsonl and run.json.

    The state is saved every `save_seconds`, in a scratch folder beside `out`, and a run that is
    started again goes on from there; without `save_seconds` every minute, or less often where that
    would take more than 2 % of the time. With `hold` what was published stays there under second
    names until `progress.release`, and the same run started again is over at once. Of several
    processes the first alone holds that folder, saves and publishes. Raises `progress.Stopped`
    after a signal or `max_minutes`, `FloatingPointError` where the loss or gradient is no number.
    """
    started, out, parents = time.monotonic(), Path(out), parallel.parents()
    images = Images(data)
    given, settings = settings, experiment.completed(settings, init, images)
    _require_classes(settings["network"].get("classes", 0), images, data)
    inputs = [path for path in (data, resume, init) if path]
    fingerprint = [STAGES["train"], settings, [machine.digest(path) for path in inputs]]
    with parallel.together(), _held(out) as folder, progress.signals() as received:
        parallel.require_shares(_smallest_batch(settings))
        work = progress.Work(folder, fingerprint)
        if any(parallel.agreed(parallel.is_first() and work.restored(out))):
            return
        with parallel.first_before_the_others():
            state = _begin(settings, images, resume, init, work)
        parallel.require_same(state.tensors())
        teacher = None if settings["target"] == "own" else experiment.load_model(init)[0]
        began = started - state.seconds
        save = functools.partial(_save, state, work, began)
        ended = functools.partial(parallel.torchrun_ended, parents)
        requests = progress.Requests(received, started, max_minutes, ended)
        steps = loop(state, settings, images, teacher)
        with _crash_noted(work, state, resume or init or "its start"):
            _advance(state, steps, settings, out, save, save_seconds, requests)
            orphaned = parallel.parents() != parents
            if orphaned:  # who comes next may ask for all of this again
                save()
        if parallel.is_first():
            with work.publishing(out) if hold else nullcontext(out) as place:
                publish(state, settings, images, place)
                _record(state, given, inputs, began, place)
            if not orphaned:
                work.clear()


def _held(out):
    """The scratch folder, held by the first process; the others only read there."""
    return progress.held(out) if parallel.is_first() else nullcontext(progress.scratch_of(out))


def _smallest_batch(settings):
    """Images in the smallest batch of a run, which may be its last."""
    batch = settings["recipe"]["batch"]
    return 1000 * (settings["last_kimg"] - settings["first_kimg"]) % batch or batch


def _advance(state, steps, settings, out, save, save_seconds, requests):
    """Take the steps, saving when it is time and when asked to stop."""
    total, saved = 1000 * settings["last_kimg"], time.monotonic()
    pause = SAVE_SECONDS if save_seconds is None else save_seconds
    label = "/".join(out.parts[-6:])
    bar = tqdm(
        total=total, initial=state.seen, unit="img", unit_scale=True, desc=label,
        disable=None if parallel.is_first() else True,
    )  # fmt: skip  # none where there is no terminal
    tell = running.teller(out, 1000 * settings["first_kimg"], total, machine.device_name())
    with bar:
        for _ in steps:
            bar.update(state.seen - bar.n)
            if parallel.is_first():
                tell(state.seen, state.lines)
            if state.lines:
                bar.set_postfix_str(f"loss {state.lines[-1]['loss']:.4g}", refresh=False)
            asked = requests.code() if state.seen < total else 0
            now = time.monotonic()
            due = parallel.is_first() and now - saved > pause
            code, due = parallel.agreed(asked, due)
            if code or due:
                save()
                saved = time.monotonic()
                if save_seconds is None:
                    pause = max(SAVE_SECONDS, (saved - now) / SAVING_SHARE)
            if code:
                why, where = requests.reason(code), f"at image {state.seen} of {total}"
                raise progress.Stopped(f"{why} {where}; run again to go on", code)


@contextmanager
def _crash_noted(work, state, start):
    """Say of a run that diverged where its last good state is, here and to runs that repeat it; of
    any other error, at which image it came."""
    try:
        yield
    except Diverged as end:
        good = start if work.kept is None else f"{work.state} (image {work.kept})"
        message = (
            f"{end}: lower optimizer.lr, or raise distance.c; nothing was published, the last good"
            f" checkpoint is {good}"
        )
        with suppress(OSError):
            if parallel.is_first():
                work.crashed(end.seen, message)
        raise FloatingPointError(message) from None
    except Exception as error:
        error.add_note(f"at image {state.seen}")
        raise


def _require_classes(classes, images, data):
    found = int(images.labels.max()) + 1
    if 0 < classes < found:
        raise ValueError(f"networks: classes is {classes}, but {data} has labels up to {found - 1}")


def _save(state, work, began):
    state.meter.check()
    state.seconds = time.monotonic() - began
    if not parallel.is_first():
        return
    tensors = state.tensors() | checkpoint.prefixed("meter", state.meter.tensors())
    tensors |= checkpoint.prefixed("snapshot", state.snapshot_tensors())
    log = {"seen": state.seen, "lines": state.lines}
    work.save(tensors, **log, seconds=state.seconds, resumed=state.resumed)


def _begin(settings, images, resume, init, work):
    """The state to go on from: work in progress if it is this very run's, else the given start."""
    state, saved = State(settings, images), work.load()
    if saved:
        _restore(state, *saved)
        if parallel.is_first():
            progress.notice(f"going on from image {state.seen} of {1000 * settings['last_kimg']}")
    elif resume:
        tensors, about = checkpoint.load(resume)
        state.restore(tensors, about["seen"])
    elif init:
        state.start_from(checkpoint.load(init)[0])
    work.refuse_to_repeat(state.seen)
    return state


def _restore(state, tensors, about):
    """The inverse of `_save`."""
    state.restore(tensors, about["seen"])
    state.meter.restore(checkpoint.within("meter", tensors))
    state.lines, state.seconds = about["lines"], about["seconds"]
    state.resumed = [*about["resumed"], state.seen]
    for key, value in checkpoint.within("snapshot", tensors).items():
        seen, name = key.split(".", 1)
        state.snapshots.setdefault(int(seen), {})[name] = value


def _record(state, given, inputs, began, out):
    """Write run.json."""
    made, seconds = 1000 * (given["last_kimg"] - given["first_kimg"]), time.monotonic() - began
    extra = {"images_per_second": round(made / seconds, 1), "resumed_at": state.resumed}
    extra |= _skipped(state)
    if parallel.world() > 1:
        extra["processes"] = parallel.world()
    extra["outputs"] = [out / name for name in ARTEFACTS]
    checkpoint.write_json(out / "run.json", machine.record(given, inputs, began, **extra))


def publish(state, settings, images, out):
    """Write the artefacts of a finished run."""
    checkpoint.sweep(out)
    about = experiment.describe(settings, images)
    checkpoint.save(out / "model.safetensors", state.average, **about)
    checkpoint.save(out / "state.safetensors", state.tensors(), seen=state.seen)
    checkpoint.save(out / "snapshots.safetensors", state.snapshot_tensors(), **about)
    with checkpoint.replacing(out / "metrics.jsonl") as scratch:
        scratch.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in state.lines))
