"""A trained model in a program of one's own: `ect.load(path).sample(16)`."""

from pathlib import Path

from ect import checkpoint, experiment
from ect.drawing import TIMES, draw

BATCH = 250  # as the default study's, since the batch's size may move the last bit


class Model:
    """A consistency model: `f`, its `process`, and `about`, what its file says of it."""

    def __init__(self, f, process, about):
        self.f, self.process, self.about = f, process, about

    @property
    def shape(self):
        """(H, W, C) of its images."""
        channels, height, width = self.about["shape"]
        return height, width, channels

    def sample(self, n, steps=2, seed=0, times=None, labels=None):
        """n images as a numpy array, uint8 (n, H, W, C), on the device that is there.

        Image i is a function of `seed` + i. `steps` is 1 or 2; `times` replaces it: falling noise
        levels s = sigma / alpha between 80 and 0, one less than there are steps. `labels` are the
        classes to draw in turn, of a model with classes; by default they are drawn too. Raises
        `ValueError`. The same as `python -m ect sample` in batches of 250, to the bit.
        """
        if not (isinstance(n, int) and n > 0):
            raise ValueError(f"n is {n!r}; allowed: a number of images >= 1")
        if times is None and steps not in TIMES:
            raise ValueError(f"steps is {steps!r}; allowed: 1, 2, or times=[...]")
        levels = [float(s) for s in (TIMES[steps] if times is None else times)]
        if not all(low < high for high, low in zip([80.0, *levels], [*levels, 0.0])):
            raise ValueError(f"times is {times}; allowed: falling noise levels between 80 and 0")
        settings = {
            "kind": "multistep", "options": {"times": levels}, "images": n,
            "batch": BATCH, "seed": seed, "labels": labels,
        }  # fmt: skip
        return draw(self.f, self.process, self.about, settings)


def load(path):
    """The model in a model.safetensors, or in the folder of a run that holds one; raises
    `ValueError` for what is neither."""
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    weights, about = checkpoint.load(file)
    if "network" not in about:
        raise checkpoint.CheckpointError(f"{file}: no model; allowed: a model.safetensors")
    return Model(*experiment.restore(weights, about))
