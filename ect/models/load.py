"""A trained model, for use in a program: `ect.load(path).sample(16)`."""

from dataclasses import dataclass
from pathlib import Path

from ect.consistency import Consistency
from ect.models import build
from ect.models.draw import TIMES, draw
from ect.process import Process

BATCH = 250  # that of the default study: the batch size may change the last bit


@dataclass(frozen=True)
class Model:
    """A consistency model: `f`, its `process`, and `about`, what its file says of it."""

    f: Consistency
    process: Process
    about: dict

    @property
    def shape(self):
        """(H, W, C) of its images."""
        channels, height, width = self.about["shape"]
        return height, width, channels

    def sample(self, n, steps=2, seed=0, times=None, labels=None):
        """n images as a numpy array, uint8 (n, H, W, C), computed on a GPU if there is one.

        Image i is a function of `seed` + i. `steps` is 1 or 2; `times` replaces it: falling noise
        levels s = sigma / alpha between 80 and 0, one less than there are steps. `labels` are the
        classes to cycle through, for a model with classes; by default they are drawn at random.
        Raises `ValueError`, and `FloatingPointError` where an image is not finite. The same as
        `python -m ect sample` in batches of 250, to the bit.
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


def load(path, plugins=()):
    """The model in a model.safetensors, or in the folder of a run that holds one; raises
    `ValueError` for what is neither. `plugins` are the Python files that it may run: without them
    a model whose process is a plugin's is refused."""
    if isinstance(plugins, (str, Path)):
        raise ValueError(f"plugins: found {str(plugins)!r}; allowed: a list of Python files")
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    return Model(*build.load_model(file, plugins))
