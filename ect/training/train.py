"""One training run as a job: started or resumed, saved, published."""

import functools
import json
import math
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tqdm import tqdm

from ect import plugins
from ect.data.batches import Images
from ect.data.trajectories import Trajectories
from ect.models import build
from ect.models.about import named
from ect.runtime import checkpoint, crash, device, distributed, progress, record, stop
from ect.runtime.text import shown
from ect.runtime.versions import STAGES, setting
from ect.runtime.work import Work, locked, log_line, work_folder
from ect.training import starts
from ect.training.augment import require_labels
from ect.training.distances import files
from ect.training.log import Diverged
from ect.training.loop import loop, skipped, step_ends, written_by
from ect.training.parts import require_chain, require_same_images, settings_with_start
from ect.training.state import State

SAVE_SECONDS, SAVING_SHARE = 60.0, 0.02  # saving takes at most this share of the time
ARTEFACTS = ("model.safetensors", "state.safetensors", "snapshots.safetensors", "metrics.jsonl")


@device.deterministic()
def run(
    settings, data, out, resume=None, init=None, trajectories=None, save_seconds=None,
    max_minutes=None, hold=False,
):  # fmt: skip
    """Train one cell and publish its artefacts in the folder `out`.

    `resume` is the state of the previous milestone, `init` a model to start from; with neither the
    start is random. Mid-training reads the file `trajectories`. Writes model.safetensors (the
    moving average), state.safetensors, snapshots.safetensors, metrics.jsonl and run.json.

    The state is saved every `save_seconds` in a scratch folder beside `out`, and a run that is
    started again resumes from there; without `save_seconds` every minute, or less often if that
    would take more than 2 % of the time. With `hold` hard links to the published files stay there
    until `work.release`, and the same run started again ends at once. Of several processes only the
    first locks that folder, saves and publishes. Raises `stop.Stopped` after a signal or
    `max_minutes`, `FloatingPointError` if the loss or gradient is not finite.
    """
    starts.require(settings, resume, init, trajectories)
    started, out, parents = time.monotonic(), Path(out), distributed.parents()
    images = Trajectories(data, trajectories) if trajectories else Images(data)
    original, settings = settings, settings_with_start(settings, init, images)
    starts.require_classes(settings, images, data, exact="network" in original)
    require_labels(settings)
    inputs = [path for path in (data, resume, init, trajectories, *files(settings)) if path]
    fingerprint = [STAGES["train"], settings, [record.digest(path) for path in inputs]]
    require_same_images(resume, data, fingerprint[2][0])
    with distributed.together(), _held(out) as folder, stop.signals() as received:
        distributed.require_shares(_smallest_batch(settings))
        work = Work(folder, fingerprint)
        if any(distributed.all_max(distributed.is_first() and work.restored(out))):
            return
        with distributed.first_before_the_others():
            state = _begin(settings, images, resume, init, work)
        distributed.require_same(state.tensors())
        began = started - state.seconds
        keep = functools.partial(save, state, work, began)
        ended = functools.partial(distributed.torchrun_ended, parents)
        requests = stop.Requests(received, started, max_minutes, ended)
        steps = loop(state, settings, images, starts.teacher(settings, init))
        with _crash_noted(work, settings, state, resume or init or "its start"):
            _advance(state, steps, settings, out, keep, save_seconds, requests)
            orphaned = distributed.parents() != parents
            if orphaned:  # the next attempt may need this state again
                keep()
        if distributed.is_first():
            with work.publishing(out) if hold else nullcontext(out) as target:
                publish(state, settings, images, target)
                _record(state, original, inputs, began, target)
            if not orphaned:
                work.clear()


def _held(out):
    """The scratch folder, locked by the first process; the others only read it."""
    return locked(out) if distributed.is_first() else nullcontext(work_folder(out))


def _smallest_batch(settings):
    """Images in the smallest batch of a run, which may be its last."""
    batch = settings["recipe"]["batch"]
    return 1000 * (settings["last_kimg"] - settings["first_kimg"]) % batch or batch


def _advance(state, steps, settings, out, keep, save_seconds, requests):
    """Take the steps, saving when it is time and when asked to stop."""
    total, saved = 1000 * settings["last_kimg"], time.monotonic()
    pause = SAVE_SECONDS if save_seconds is None else save_seconds
    label = "/".join(out.parts[-6:])
    bar = tqdm(
        total=total, initial=state.seen, unit="img", unit_scale=True, desc=label,
        disable=None if distributed.is_first() else True,
    )  # fmt: skip  # no bar without a terminal
    tell = progress.reporter(out, 1000 * settings["first_kimg"], total, device.device_name())
    with bar:
        for _ in steps:
            bar.update(state.seen - bar.n)
            if distributed.is_first():
                tell(state.seen, state.lines)
            if state.lines:
                bar.set_postfix_str(f"loss {state.lines[-1]['loss']:.4g}", refresh=False)
            asked = requests.code() if state.seen < total else 0
            now = time.monotonic()
            due = distributed.is_first() and now - saved > pause
            code, due = distributed.all_max(asked, due)
            if code or due:
                keep()
                saved = time.monotonic()
                if save_seconds is None:
                    pause = max(SAVE_SECONDS, (saved - now) / SAVING_SHARE)
            if code:
                why, where = requests.reason(code), f"at image {state.seen} of {total}"
                raise stop.Stopped(f"{why} {where}; run again to go on", code)


def _advice(settings):
    """What may keep a run from diverging."""
    name = settings["schedule"]["map"]
    if files := plugins.providing("objective", name, settings).get("plugins"):
        return f"lower optimizer.lr, or mend the objective {name!r} of {next(iter(files))}"
    huber = settings["recipe"]["distance"]["kind"] == "huber"
    return "lower optimizer.lr" + (", or raise distance.c" if huber else "")


@contextmanager
def _crash_noted(work, settings, state, start):
    """If the run diverges, say where its last good state is, here and to attempts that would repeat
    it; to any other error add the image at which it came."""
    try:
        yield
    except Diverged as end:
        good = start if work.kept is None else f"{work.state_file} (image {work.kept})"
        message = (
            f"{end}: {_advice(settings)}; nothing was published, the last good checkpoint is {good}"
        )
        with suppress(OSError, checkpoint.CheckpointError):
            if distributed.is_first():
                work.note_divergence(end.seen, message)
        raise FloatingPointError(message) from None
    except Exception as error:
        error.add_note(f"at image {state.seen}")
        raise


def save(state, work, began):
    state.meter.check()
    state.seconds = time.monotonic() - began
    if not distributed.is_first():
        return
    tensors = state.tensors() | checkpoint.prefixed("meter", state.meter.tensors())
    tensors |= checkpoint.prefixed("snapshot", state.snapshot_tensors())
    log = {"seen": state.seen, "lines": state.lines}
    work.save(tensors, **log, seconds=state.seconds, resumed=state.resumed)


def _begin(settings, images, resume, init, work):
    """The state to start from: this run's own work in progress, else `resume` or `init`."""
    saved = _saved(settings, images, work)
    state = saved or State(settings, images)
    if saved:
        if distributed.is_first():
            log_line(f"going on from image {state.seen} of {1000 * settings['last_kimg']}")
    elif resume:
        resumed(state, settings, resume)
    elif init:
        with named(init):
            state.start_from(build.read(init)[0])
    work.refuse_to_repeat(state.seen)
    return state


def _saved(settings, images, work):
    """The state that this run saved last, or None. One that is damaged is put aside: every attempt
    would end with it."""
    saved = work.load()
    if saved is None:
        return None
    state = State(settings, images)
    try:
        _require_possible(settings, *saved)
        restore(state, *saved)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        if crash.short_of_memory(error) or "CUDA" in str(error):
            raise
        work.put_aside(error)
        return None
    return state


def _require_possible(settings, tensors, about):
    """Raise `ValueError` unless this run can have saved such a state: at the end of a step, with
    the log and the snapshots of that time."""
    needed = {"seen": int, "lines": list, "seconds": (int, float), "resumed": list}
    seen = checkpoint.typed(about, "its description", needed)["seen"]
    logged, kept = written_by(settings, seen)
    parts = {key.split(".")[1] for key in tensors if key.startswith("snapshot.")}
    found = [line["images"] for line in about["lines"]], sorted(map(int, parts))
    if not 0 <= about["seconds"] < math.inf:
        raise ValueError(f"its seconds are {about['seconds']}")
    if seen not in step_ends(settings, [seen]) or found != (logged, kept):
        raise ValueError(f"its log and snapshots are not those of image {seen}")


def resumed(state, settings, path):
    """Go on from the state that another run left; raises `ValueError` unless it is of the same
    chain, and ends where these settings begin."""
    tensors, about = checkpoint.load(path)
    first = 1000 * settings["first_kimg"]
    if type(about.get("seen")) is not int or about["seen"] != first:
        found = f"found a state after {shown(about.get('seen'), 60)} images"
        raise ValueError(f"{path}: {found}; allowed: {first}, as first_kimg says")
    require_chain(path, settings)
    with named(path):
        state.restore(tensors, first)


def restore(state, tensors, about):
    """The inverse of `save`; raises `ValueError` unless the tensors are those of such a run."""
    state.restore(tensors, about["seen"])
    state.meter.restore(checkpoint.within("meter", tensors))
    state.lines, state.seconds = about["lines"], about["seconds"]
    state.resumed = [*about["resumed"], state.seen]
    for key, value in checkpoint.within("snapshot", tensors).items():
        seen, name = key.split(".", 1)
        state.snapshots.setdefault(int(seen), {})[name] = value
    for weights in state.snapshots.values():
        build.require_match(weights, state.network.state_dict(), "snapshot")


def _record(state, original, inputs, began, out):
    """Write run.json."""
    made = 1000 * (original["last_kimg"] - original["first_kimg"])
    seconds = time.monotonic() - began
    extra = {"images_per_second": round(made / seconds, 1), "resumed_at": state.resumed}
    extra |= skipped(state)
    if distributed.world() > 1:
        extra["processes"] = distributed.world()
    extra["outputs"] = [out / name for name in ARTEFACTS]
    checkpoint.write_json(out / "run.json", record.job_record(original, inputs, began, **extra))


def publish(state, settings, images, out):
    """Write the artefacts of a finished run."""
    checkpoint.sweep(out)
    about = build.description(settings, images)
    about |= _trained_classes(setting(settings["network"], "classes"), images.labels)
    checkpoint.save(out / "model.safetensors", state.average, **about)
    checkpoint.save(out / "state.safetensors", state.tensors(), seen=state.seen)
    checkpoint.save(out / "snapshots.safetensors", state.snapshot_tensors(), **about)
    with checkpoint.replacing(out / "metrics.jsonl") as scratch:
        lines = (json.dumps(line, sort_keys=True) + "\n" for line in state.lines)
        scratch.write_text("".join(lines), encoding="utf-8")


def _trained_classes(classes, labels):
    """Which of a network's classes have training images, where not all have: only these are
    sampled."""
    trained = sorted(set(labels.tolist())) if classes else []
    return {"trained_classes": trained} if len(trained) < classes else {}
