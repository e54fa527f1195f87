"""What a tuning run learned, measured on its snapshots: the loss does not show it.

With the weight 1 / (t - r) the loss is a slope, |f(x_t) - f(x_r)| / (t - r), whose numerator and
denominator shrink together, and every stage defines it anew. These quantities keep one meaning for
the whole run: residuals at fixed pairs (t, r), errors |f(x_t) - x_0|^2 at fixed t, and distances.
"""

import csv
import math

import torch

from ect.data.batches import Images
from ect.evaluation import features, metrics, origin
from ect.evaluation.evaluate import space_of
from ect.models import build
from ect.models.draw import draw
from ect.objective import squared
from ect.runtime import checkpoint, device
from ect.runtime.seeds import generator_of
from ect.runtime.text import csv_cell, shown

IMAGES = 256  # of the probe, the same for every snapshot
LEVELS = (0.1, 0.3, 1.0, 3.0, 10.0)  # noise levels s of the probe
RATIOS = (0.5, 0.9, 0.99)  # r / s of the probe's pairs
COLUMNS = ("images", "quantity", "s", "ratio", "sampler", "value")


def run(settings, init, snapshots, data, reference, out, classifier=None):
    """Write a csv in long form with the columns `COLUMNS`: the start (0 images) and every snapshot.

    `fd` is the distance of each sampler's images to the training images, whose features are stored
    in `reference`; `end_to_end` and `residual` are means of squared errors per pixel on a fixed
    batch of images and noise.
    """
    images = Images(data)
    for source, what in ((init, "a start"), (data, "images")):
        origin.require_made_from(snapshots, source, what)
    origin.require_made_from(reference, data, "images")
    _, extract, real = space_of(reference, settings["features"], images.shape, classifier)
    real = metrics.Reference(real)
    with checkpoint.replacing(out) as scratch, open(scratch, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for seen, (f, process, about) in models(init, snapshots):
            for label, sampling in settings["samplers"].items():
                drawn = features.of_images(extract, draw(f, process, about, sampling))
                features.require_width(init, drawn, real.features, reference)
                fd = metrics.measures(["fd"], drawn, real, None)["fd"]
                row = {"images": seen, "quantity": "fd", "sampler": csv_cell(label), "value": fd}
                table.writerow(row)
            table.writerows(
                {"images": seen, **row} for row in finite(probe(f, process, images), seen)
            )


def finite(rows, seen):
    """The rows; raises `FloatingPointError` where a value is NaN or infinite."""
    for row in rows:
        if not math.isfinite(row["value"]):
            at = f"s = {row['s']:g} of the model after {seen} images"
            raise FloatingPointError(
                f"{row['quantity']} is {row['value']} at {at}; allowed: a finite number"
            )
        yield row


def models(init, snapshots):
    """(images seen, model) of the start and of each snapshot, in order."""
    yield 0, build.load_model(init)
    tensors, about = checkpoint.load(snapshots)
    counts = {key.split(".", 1)[0] for key in tensors}
    if odd := [key for key in counts if not (key.isascii() and key.isdigit())]:
        allowed = "allowed: weights named by the images seen, as `train` writes"
        raise checkpoint.CheckpointError(f"{snapshots}: found {shown(odd[0], 60)!r}; {allowed}")
    if not counts:
        allowed = "allowed: those of a run with snapshots >= 1"
        raise checkpoint.CheckpointError(f"{snapshots}: found no snapshots; {allowed}")
    for seen in sorted(map(int, counts)):
        yield seen, build.from_description(checkpoint.within(str(seen), tensors), about, snapshots)


@torch.no_grad()
def probe(f, process, images):
    """The rows of `end_to_end` and `residual` of a model, on a fixed batch of images and noise."""
    place = device.current()
    x = images.encode(images.pixels[:IMAGES]).to(place)
    eps = torch.randn(x.shape, generator=generator_of("probe")).to(place)

    @device.precision("fp32")
    def estimate(s):
        t = process.time(torch.full((len(x),), s, device=place))
        return f(process.noise(x, eps, t), t)

    for s in LEVELS:
        at_s = estimate(s)
        yield {"quantity": "end_to_end", "s": s, "value": float(squared(at_s, x).mean())}
        for ratio in RATIOS:
            value = float(squared(at_s, estimate(s * ratio)).mean())
            yield {"quantity": "residual", "s": s, "ratio": ratio, "value": value}
