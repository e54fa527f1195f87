"""Trajectories of an ODE as a file: written in a stream, read a few at a time.

It holds `points`, float32 (N, K + 1, C, H, W): y = x_t / alpha of N trajectories at K falling noise
levels and, last, at 0; `levels`, float32 (K + 1,); `labels`, int64 (N,), all 0 without classes; and
in its metadata the mapping `about`.
"""

import itertools
import json
import math

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ect.data.batches import Images, shuffled
from ect.runtime.checkpoint import CheckpointError, replacing, require_no_pipe
from ect.runtime.text import allowing, cause, parsed, shown, shown_path

HIGHEST = 1e5  # a noise level, as of a prior
PARTS = {"levels": ("F32", 1), "labels": ("I64", 1), "points": ("F32", 5)}  # (type, axes)


def write(path, about, levels, labels, shape, batches):
    """Write trajectories of images `shape` = (C, H, W) that come in batches (n, K + 1, C, H, W),
    with their `labels`; atomically, with one batch in memory."""
    count, ends = len(labels), len(levels)
    sides = {"levels": (ends,), "labels": (count,), "points": (count, ends, *shape)}
    entries, end = {}, 0
    for name, (kind, _) in PARTS.items():
        start, end = end, end + int(kind[1:]) // 8 * math.prod(sides[name])
        entries[name] = {"dtype": kind, "shape": sides[name], "data_offsets": [start, end]}
    said = {"about": json.dumps(about, sort_keys=True)}
    text = json.dumps({"__metadata__": said, **entries}).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as scratch, open(scratch, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(np.asarray(levels, "<f4").tobytes() + np.asarray(labels, "<i8").tobytes())
        for batch in batches:
            file.write(batch.numpy().astype("<f4").tobytes())


class Trajectories(Images):
    """The images of a dataset file, in whose range the trajectories of a file lie; training draws
    points of these in place of images with noise. Raises `CheckpointError` for a file that holds
    no trajectories, `ValueError` if they are of other images."""

    def __init__(self, data, path):
        super().__init__(data)
        require_no_pipe(path)
        try:
            self.file = safe_open(path, framework="pt")
            about = parsed((self.file.metadata() or {})["about"])
            _require_parts(self.file)
            self.levels = self.file.get_tensor("levels")
            self.path_classes = self.file.get_tensor("labels")  # of each trajectory
            self.points = self.file.get_slice("points")
            self.conditions = about["classes"]  # how many classes the solved network has; 0: none
            self._require_classes()
            found = {key: about[key] for key in ("shape", "shift", "scale")}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            lost = f"no {error}" if isinstance(error, KeyError) else cause(error, path)
            said = f"not readable trajectories ({lost})"
            said = allowing(said, "what `solve-trajectories` writes")
            raise CheckpointError(f"{shown_path(path)}: {said}") from None
        wanted = {"shape": list(self.shape), "shift": self.shift, "scale": self.scale}
        if found != wanted:
            raise ValueError(
                f"{path}: trajectories of images {found}; allowed: {wanted}, as {data}"
            )

    def _require_classes(self):
        last = max(self.conditions, 1) - 1
        if not 0 <= self.path_classes.min() <= self.path_classes.max() <= last:
            found = f"{self.path_classes.min()} to {self.path_classes.max()}"
            raise ValueError(f"labels are {found}; allowed: 0 to {last}")

    def draw(self, seed, seen, size):
        """Points `seen`, `seen` + 1, ... of an endless sequence: all points of one trajectory, then
        all of the next, in shuffled epochs. Returns (x, eps, s, labels): the ends x of their
        trajectories (size, C, H, W), the eps by which y = x + s eps, and s (size,)."""
        count, steps = len(self.path_classes), len(self.levels) - 1
        numbers = range(seen // steps, (seen + size - 1) // steps + 1)
        rows = {n: int(shuffled(seed, n // count, count)[n % count]) for n in numbers}
        paths = {n: self.points[row : row + 1][0] for n, row in rows.items()}
        places = [divmod(i, steps) for i in range(seen, seen + size)]
        y = torch.stack([paths[n][k] for n, k in places])
        x = torch.stack([paths[n][-1] for n, _ in places])
        s = self.levels[[k for _, k in places]]
        labels = self.path_classes[[rows[n] for n, _ in places]]
        return x, (y - x) / s[:, None, None, None], s, labels


def _require_parts(file):
    """Raise `ValueError` unless the parts have their types and fit together."""
    sides = {}
    for name, (kind, axes) in PARTS.items():
        part = file.get_slice(name)
        sides[name] = tuple(part.get_shape())
        if part.get_dtype() != kind or len(sides[name]) != axes or 0 in sides[name]:
            raise ValueError(f"{name} is {sides[name]} of {part.get_dtype()}")
    if sides["points"][:2] != (*sides["labels"], *sides["levels"]):
        found = f"points of {sides['points']}, labels of {sides['labels']}"
        raise ValueError(f"{found}, levels of {sides['levels']}")
    levels = file.get_tensor("levels").tolist()
    falling = all(low < high for high, low in itertools.pairwise(levels))
    if not falling or levels[-1] != 0 or not levels[0] <= HIGHEST:
        allowed = f"falling ones from {HIGHEST:g} or less, the last one 0"
        raise ValueError(f"levels are {shown(levels, 60)}; allowed: {allowed}")
    points = file.get_slice("points")
    for row in range(sides["labels"][0]):
        if not points[row : row + 1].isfinite().all():
            raise ValueError(f"trajectory {row} holds NaN or infinity; allowed: finite points")
