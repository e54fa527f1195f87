"""What the feature spaces see: distances of images that were made worse in known ways, in steps.

    python bench/corruptions.py --path PHOTOS --out FOLDER --work SCRATCH

The images of a folder with a subfolder for each class, at 32x32, are blurred, covered with noise,
mixed with scikit-learn's digits, or drawn from fewer classes. Disjoint sets of held-out images are
compared with training images, in the features of EfficientNet-Lite0 and in those of a plain
classifier that is trained here on 12,000 images. Writes tables/corruptions.csv, a value for each
set, and corruptions.md, their means; figures/corruptions.png; record.json. What `--work` keeps is
not computed again.
"""

import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from ect.data import prepare
from ect.data.batches import Images
from ect.data.sources import digits
from ect.evaluation import classifier, efficientnet, evaluate, features, metrics
from ect.report import gather, markup, style
from ect.runtime import checkpoint, record
from ect.runtime.options import Parser, errors_as_lines, folder, new_folder, whole

SETS = 4
POOL = 6  # times the images of a set: held-out ones, of which each set finds enough of two classes
PIECE = 400  # images whose features are kept in one file
SUBSETS = 20  # of the kernel distance
IMAGES, HELD_OUT = 16_000, 4000
NETWORK = {"channels": 8, "epochs": 5, "batch": 64, "lr": 3e-3}
# Of each corruption: what its strength is, and the strengths.
KINDS = {
    "blur": ("Gaussian blur, sd in pixels", (0.5, 1, 2)),
    "noise": ("Gaussian noise, sd in grey values of 255", (5, 10, 20)),
    "mixed": ("digits among the images, in %", (2, 10, 40)),
    "classes": ("classes of 10", (8, 5, 2)),
}
CLEAN = ("none", 0)
# The name of each space in files of features, and in the figure.
SPACES = {
    "efficientnet": (efficientnet.SPACE, "EfficientNet-Lite0"),
    "classifier": ("classifier", "own classifier"),
}


def blurred(pixels, sd):
    """Images (N, H, W, C) under a Gaussian filter, whose edges repeat."""
    smooth = gaussian_filter(pixels.astype(np.float32), (0, sd, sd, 0), mode="nearest")
    return smooth.round().astype(np.uint8)


def noisy(pixels, sd):
    """Images (N, H, W, C) with white noise, rounded to grey values and cut at black and white."""
    noise = np.random.default_rng(0).normal(0, sd, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def coloured_digits(side):
    """scikit-learn's digits as uint8 (1797, side, side, 3)."""
    found = digits({})
    grey = np.stack([found.read(row) for row in range(len(found.names))])
    size, planes = (side, side), torch.from_numpy(grey).permute(0, 3, 1, 2).float()
    large = functional.interpolate(planes, size, mode="bicubic", antialias=True)
    return large.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy().repeat(3, axis=3)


def of_classes(labels, classes, count):
    """Rows of each set, (SETS, count): of so many classes, other ones for each set as far as there
    are; no row is in two sets."""
    free, sets = np.ones(len(labels), bool), []
    for index in range(SETS):
        kept = [(index * classes + offset) % 10 for offset in range(classes)]
        rows = np.flatnonzero(free & np.isin(labels, kept))[:count]
        assert len(rows) == count, f"{len(rows)} images of {classes} classes"
        free[rows] = False
        sets.append(rows)
    return np.stack(sets)


class Space:
    """A feature space, with features that are computed once and kept in a folder, in pieces."""

    def __init__(self, name, work, weights):
        self.name, self.work = name, work
        self.stored, self.extract = evaluate.extractor({"extractor": name}, weights)

    def of(self, what, pixels, count):
        """Features (count, D) of the first images of `pixels`, (N, H, W, C)."""
        starts = range(0, min(count, len(pixels)), PIECE)
        pieces = [self._piece(f"{what}-{start}", pixels, start) for start in starts]
        return np.concatenate(pieces)[:count]

    def _piece(self, what, pixels, start):
        path = self.work / f"{self.name}-{what}.safetensors"
        if not path.is_file():
            found = features.of_images(self.extract, pixels[start : start + PIECE])
            features.save(path, torch.from_numpy(found).float(), self.stored)
        return features.load(path)[1]


def measured(space, images, test, count, against):
    """Yields (corruption, strength, set, FD, KD) in one feature space, of sets of `count` images to
    `against` training images."""
    real = space.of("reference", images.pixels, against)
    reference = metrics.Reference(real)
    whole = -(-SETS * count // PIECE) * PIECE  # in pieces
    drawn, clean = test.pixels[:whole], space.of("clean", test.pixels, POOL * count)
    strange = space.of("digits", coloured_digits(drawn.shape[1]), SETS * count // 2)
    plain = np.arange(SETS * count).reshape(SETS, count)
    changes = {"blur": blurred, "noise": noisy}

    def sets_of(kind, strength):
        if kind in changes:
            changed = space.of(f"{kind}-{strength:g}", changes[kind](drawn, strength), whole)
            return changed[plain]
        if kind == "classes":
            return clean[of_classes(test.labels[: len(clean)], strength, count)]
        found, share = clean[plain].copy(), count * strength // 100
        found[:, :share] = strange[: SETS * share].reshape(SETS, share, -1)
        return found

    every = [CLEAN, *((kind, s) for kind, (_, strengths) in KINDS.items() for s in strengths)]
    for kind, strength in every:
        path = space.work / f"{space.name}-{kind}-{strength:g}-{count}-{against}.json"
        if not path.is_file():
            sets = clean[plain] if (kind, strength) == CLEAN else sets_of(kind, strength)
            found = {"fd": [metrics.frechet(one, reference) for one in sets]}
            found["kd"] = [metrics.kernel(one, real, SUBSETS) for one in sets]
            checkpoint.write_json(path, found)
        found = checkpoint.read_json(path, {"fd": list, "kd": list})
        for index, distances in enumerate(zip(found["fd"], found["kd"])):
            yield kind, strength, index, *distances


def table(frame, count, against, accuracy):
    """The means as a Markdown table: corruptions down, distances across."""
    headers, rows = ["Corruption", "Strength"], []
    for stored, _ in SPACES.values():
        headers += [gather.metric_name(stored, metric) for metric in ("fd", "kd")]
    for (kind, strength), group in frame.groupby(["corruption", "strength"], sort=False):
        row = [KINDS[kind][0] if kind in KINDS else kind, f"{strength:g}" * (kind in KINDS)]
        for space, metric in itertools.product(SPACES, ("fd", "kd")):
            found = group[group.space == space][metric]
            row.append(markup.mean_and_sd(found.mean(), found.std(), len(found)))
        rows.append(row)
    caption = (
        f"CIFAR-10 (JPEG): Frechet and kernel distance of {SETS} disjoint sets of {count:,}"
        f" held-out images to {against:,} training images. Mean ± sd over the sets, their number in"
        f" brackets. The classifier names {accuracy:.1%} of the held-out images rightly."
    )
    return markup.markdown(headers, rows, ["l", *"rrrrr"], caption)


def draw(frame, out):
    """Each corruption's distances as multiples of those without it, in both spaces."""
    with style.figure(out, 6.6, 2.3, columns=len(KINDS), sharey=True) as (_, axes):
        for axis, (kind, (what, strengths)) in zip(axes[0], KINDS.items()):
            places = np.arange(len(strengths))
            for index, (space, (_, name)) in enumerate(SPACES.items()):
                part = frame[(frame.corruption == kind) & (frame.space == space)]
                groups = part.groupby("strength", sort=False).times
                means, sds = groups.mean(), groups.std()
                axis.errorbar(places, means, sds, label=name, **style.series(index))
            axis.axhline(1, color="#6b6b6b", linewidth=0.6)
            axis.set_xticks(places, [f"{s:g}" for s in strengths])
            axis.set(xlabel=what.replace(", ", ",\n"), yscale="log")
        axes[0, 0].set_ylabel("FD, times that without")
        style.log_ticks(axes[0, 0].yaxis)
        axes[0, 0].legend()


def prepared(path, work):
    """(dataset file, weights of a classifier of its training images, its accuracy), made unless
    they are in the folder `work`."""
    data, out = work / "dataset.safetensors", work / "classifier"
    settings = {"source": "images", "path": path, "classes": "folders", "resolution": 32}
    settings |= {"normalize": "unit", "max_images": IMAGES, "held_out": HELD_OUT, "split_seed": 0}
    if not data.is_file():
        prepare.run(settings, data)
    if not (out / "run.json").is_file():
        out.mkdir(exist_ok=True)
        classifier.run(NETWORK, data, out)
    accuracy = checkpoint.read_json(out / "run.json")["test_accuracy"]
    return data, out / "classifier.safetensors", accuracy


def parser():
    most = HELD_OUT // POOL
    found = Parser(description=__doc__.partition("\n")[0])
    found.add_argument(
        "--path", required=True, type=folder, help="folder of images, one subfolder a class"
    )
    found.add_argument("--out", required=True, type=new_folder, help="folder of the results")
    found.add_argument("--count", type=whole(50, most), default=600, help="images in a set")
    found.add_argument(
        "--against", type=whole(50, IMAGES - HELD_OUT), default=3000, help="training images"
    )
    found.add_argument("--work", required=True, type=new_folder, help="folder of what is kept")
    return found


def main():
    args, started = parser().parse_args(), time.monotonic()
    tables, figures = args.out / "tables", args.out / "figures"
    data, weights, accuracy = prepared(str(args.path), args.work)
    for place in (tables, figures):
        place.mkdir(parents=True, exist_ok=True)
    images, test, sizes = Images(data), Images(data, "test"), (args.count, args.against)
    lines = [
        (name, *line)
        for name in SPACES
        for line in measured(Space(name, args.work, weights), images, test, *sizes)
    ]
    frame = pd.DataFrame(lines, columns=["space", "corruption", "strength", "set", "fd", "kd"])
    clean = frame[frame.corruption == CLEAN[0]].set_index(["space", "set"]).fd
    frame["times"] = frame.fd / clean.loc[zip(frame.space, frame.set)].values
    files = [tables / "corruptions.csv", tables / "corruptions.md", figures / "corruptions.png"]
    files[0].write_text(markup.csv(frame))
    files[1].write_text(table(frame, *sizes, accuracy))
    draw(frame, files[2].with_suffix(""))
    inputs = [data, weights, efficientnet.weights_file()]
    settings = {"classifier": NETWORK, "count": args.count, "against": args.against}
    made = record.job_record(settings, inputs, started, files, accuracy=accuracy)
    made["inputs"] = {Path(name).name: digest for name, digest in made["inputs"].items()}
    del made["environment"]
    checkpoint.write_json(args.out / "record.json", made)


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
