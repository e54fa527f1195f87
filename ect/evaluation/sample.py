"""The images of a model as a file, drawn by all processes of a job."""

import collections
import math
import shutil
import time
from pathlib import Path

from ect.evaluation import samples
from ect.models import build
from ect.models.draw import stream
from ect.runtime import checkpoint, distributed
from ect.runtime.record import job_record


def run(settings, model, out):
    """Write samples.npz (arr_0: uint8 (N, H, W, C), the format of OpenAI's evaluator) and
    run.json. Several processes share the drawing; the file has the same bytes as from one."""
    started, out = time.monotonic(), Path(out)
    if distributed.is_first():
        require_disk(out, settings["images"], build.read(model)[1]["shape"])
    with distributed.together():
        images = drawn_by_all(model, settings)
        if not distributed.is_first():
            collections.deque(images, maxlen=0)  # draws its share; the first writes
            return
        _, images = samples.shaped(images)  # a refusal leaves no folder
        samples.write(out / "samples.npz", settings["images"], images)
        record = job_record(settings, [model], started, [out / "samples.npz"], **processes())
        checkpoint.write_json(out / "run.json", record)


def require_disk(out, count, shape):
    """Raise `ValueError` unless `count` images (C, H, W) fit on the disk of a folder."""
    place = Path(out).absolute()
    while not place.exists():
        place = place.parent
    size, free = count * math.prod(shape), shutil.disk_usage(place).free
    if size > free:
        found = f"found {count:,}, of {size:,} bytes in all"
        raise ValueError(f"images: {found}; allowed: {free:,} bytes, which {place} has")


def drawn_by_all(model, settings):
    """The images of `draw.stream`, drawn by all processes and yielded in the first. Each draws
    whole batches, since in another batch an image may be rounded differently."""
    f, process, about = build.load_model(model, settings.get("plugins", ()))
    if distributed.world() == 1:
        return stream(f, process, about, settings, bar=True)
    first, batch = settings["seed"], settings["batch"]
    last = first + settings["images"]

    def draw(seeds):
        subset = settings | {"seed": seeds[0], "images": len(seeds)}
        return next(stream(f, process, about, subset))

    parts = [range(start, min(start + batch, last)) for start in range(first, last, batch)]
    channels, height, width = about["shape"]
    return distributed.map_batches(parts, draw, (height, width, channels))


def processes():
    """The number of processes, for the record of a job; nothing if it is one."""
    return {"processes": distributed.world()} if distributed.world() > 1 else {}
