"""How near generated images lie to training images, beside held-out ones: a table and a figure."""

import numpy as np
import pandas as pd

from ect.data import npz
from ect.data.file import read
from ect.report import gather, grid, markup, style
from ect.report.tables import write
from ect.runtime import checkpoint

SETS = {"generated": "generated", "held_out": "held-out", "training": "training"}
SPACES = {"pixels": "distance in pixels", "features": "distance in features"}
NEAR = 1  # percent of the held-out images that are nearer count as near
KEYS = [f"{set_}.{space}.{what}" for set_ in ("generated", "held_out") for space in SPACES
        for what in ("row", "distance")] + ["held_out.rows"]  # fmt: skip
DISTANCES = ["least", "median", "near_percent"]
COLUMNS = ["images_of", "images", *(f"{space}_{key}" for space in SPACES for key in DISTANCES)]
COLUMNS += ["fd_training", "fd_held_out", "against"]
# What a Frechet distance is of, and to what.
PAIRS = {
    "generated": ("training", "held_out"), "held_out": ("training",), "training": ("held_out",)
}  # fmt: skip


def load(path):
    """({name: array}, about) of a file that `find-nearest` wrote; raises `ValueError`."""
    tensors, about = checkpoint.load(path)
    facts = {"features": str, "fd": dict, "against": int}
    checkpoint.typed(about, f"{path}: about", facts)
    sizes = {tuple(tensor.shape) for tensor in tensors.values()}
    if set(tensors) != set(KEYS) or len(sizes) != 1 or len(next(iter(sizes))) != 1:
        found = ", ".join(sorted(tensors)[:3])
        raise ValueError(f"{path}: found {found}, ...; allowed: what `find-nearest` writes")
    arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
    for key, values in arrays.items():
        _require_possible(f"{path}: {key}", values, key.endswith("distance"))
    gather.require_name(path, about["features"])
    gather.require_possible(path, "against", about["against"])
    for what, to in PAIRS.items():
        place = f"{path}: fd: {what}"
        numbers = dict.fromkeys(to, gather.NUMBER)
        distances = checkpoint.typed(about["fd"].get(what), place, numbers)
        for name in to:
            gather.require_possible(f"{place}: {name}", "fd", distances[name])
    return arrays, about


def _require_possible(place, values, distances):
    """Raise `ValueError` unless an array can be distances, or rows, of one image or more."""
    kind, words = ("f", "finite floats") if distances else ("i", "whole numbers")
    if values.dtype.kind != kind or not values.size:
        found = f"{len(values)} of {values.dtype}"
    elif wrong := values[~((values >= 0) & np.isfinite(values))].tolist():
        found = f"{wrong[0]}"
    else:
        return
    raise ValueError(f"{place}: found {found}; allowed: {words} >= 0, one at least")


def near(found, of, space):
    """Percent of the images `of` a set that lie nearer to a training image than all but `NEAR`
    percent of the held-out ones do."""
    limit = np.percentile(found[f"held_out.{space}.distance"], NEAR, method="inverted_cdf")
    return 100 * float((found[f"{of}.{space}.distance"] <= limit).mean())


def rows(found, about):
    """The rows of the table, generated images, held-out and, for Frechet distances alone, training
    images."""
    count = len(found["held_out.rows"])
    for of in SETS:
        row = {"images_of": SETS[of], "images": count, "against": about["against"]}
        for space in SPACES if of != "training" else ():
            distance = found[f"{of}.{space}.distance"]
            shown = {"least": distance.min(), "median": np.median(distance)}
            shown["near_percent"] = near(found, of, space)
            row |= {f"{space}_{key}": value for key, value in shown.items()}
        yield row | {f"fd_{to}": about["fd"][of][to] for to in PAIRS[of]}


def tabulate(nearest, out):
    """Write out.csv, out.md and out.tex of a file that `find-nearest` wrote."""
    found, about = load(nearest)
    frame = pd.DataFrame(rows(found, about)).reindex(columns=COLUMNS)
    write(f"{out}.csv", markup.csv(frame))
    headers = ["Images", "n", *["Least", "Median", "Near (%)"] * 2, "to training", "to held-out"]
    shown = COLUMNS[2:-1]
    cells = [
        [row["images_of"], str(row["images"]), *map(_text, (row[key] for key in shown))]
        for _, row in frame.iterrows()
    ]
    wide = [f"{'Pixels' if i < 3 else 'Features'}: {h.lower()}" for i, h in enumerate(headers[2:8])]
    wide += ["FD to training", "FD to held-out"]
    aligns, caption = "l" + "r" * 9, _caption(about)
    write(f"{out}.md", markup.markdown([*headers[:2], *wide], cells, aligns, caption))
    write(f"{out}.tex", markup.latex([*headers[:2], *wide], (2, "Nearest training image, and FD"),
                                     cells, aligns, caption, "nearest", False))  # fmt: skip


def _text(value):
    return "" if pd.isna(value) else markup.digits(value)


def _caption(about):
    name = gather.metric_name(about["features"])
    return (
        "Distances to the nearest training image, in pixels (root mean square, black to white is 1)"
        " and in features (Euclidean). Near: as near as the nearest one percent of the held-out"
        f" images. {name} of these images to {about['against']} training and to as many held-out"
        " images; none is measured against itself."
    )


def plot_nearest(nearest, samples, data, out, width_in, columns):
    """Above, how many of the images have a training image within a distance, in pixels and in
    features. Below, the generated images that are nearest in pixels, beside their training images,
    and the same of held-out ones, the nearest first: `columns` of each, or all if there are fewer.
    """
    found = load(nearest)[0]
    columns = min(columns, len(found["held_out.rows"]))
    strips = _strips(found, samples, data, columns)
    height = (width_in - 1.1) / columns * 1.06 * len(strips)
    with style.figure(out, width_in, 2.3 + height, 1 + len(strips), 2,
                      height_ratios=[2.3 * columns / (width_in - 1.1)] + [1.0] * len(strips)
                      ) as (figure, axes):  # fmt: skip
        for axis, (space, name) in zip(axes[0], SPACES.items()):
            _plot_shares(axis, found, space)
            axis.set_xlabel(f"{name} to the nearest training image")
        axes[0, 0].set_ylabel("images within it (%)")
        axes[0, 1].legend()
        plan = axes[0, 0].get_gridspec()
        for index, (label, images) in enumerate(strips, 1):
            for axis in axes[index]:
                axis.remove()
            axis = figure.add_subplot(plan[index, :])
            axis.imshow(grid.strip(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)


def _plot_shares(axis, found, space):
    for index, of in enumerate(("generated", "held_out")):
        distance = np.sort(found[f"{of}.{space}.distance"])
        share = 100 * np.arange(1, len(distance) + 1) / len(distance)
        line = {key: style.series(index)[key] for key in ("color", "linestyle")}
        axis.plot(distance, share, **line, label=f"{SETS[of]} ({len(distance)})")
    axis.set(ylim=(0, 100))
    axis.set_xlim(left=0)


def _strips(found, samples, data, columns):
    """[(label, images)]: of each set those that are nearest, and what they are nearest to."""
    training, test = read(data, "train")[0], read(data, "test")[0]
    made, chosen = np.concatenate(list(npz.read(samples))), found["held_out.rows"]
    count = len(chosen)
    if not 0 < count <= len(made):
        raise ValueError(
            f"{samples}: {len(made)} images, of which {count} were searched; allowed: those that"
            " were searched, one at least"
        )
    strips = []
    _require_rows(data, "test", chosen, test)
    for of in ("generated", "held_out"):
        _require_rows(data, "training", found[f"{of}.pixels.row"], training)
        order = np.argsort(found[f"{of}.pixels.distance"], kind="stable")[:columns]
        images = made[order] if of == "generated" else test[list(chosen[order])]
        strips.append((SETS[of], images))
        rows_of = found[f"{of}.pixels.row"][order]
        strips.append(("its nearest\ntraining image", training[list(rows_of)]))
    return strips


def _require_rows(data, split, rows, images):
    """Raise `ValueError` unless the images of a split have all of these rows."""
    if (last := int(rows.max())) >= len(images):
        found = f"found {len(images)} {split} images, of which row {last} was searched"
        raise ValueError(f"{data}: {found}; allowed: the dataset file that was searched")
