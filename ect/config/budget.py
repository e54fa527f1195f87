"""The key `budget`: every number of images of a study, many times or a part of it. Loads no torch.

All numbers of images that a study trains with are multiples of their greatest common divisor. The
budget changes this unit to another whole one, so that milestones, shares and totals fit as before.
"""

import math
from typing import NamedTuple

# Keys in thousand images: whole ones, which are multiples of the unit, and lengths.
WHOLE = ("kimg", "every", "milestones", "tune_kimg", "total_kimg", "up_to_kimg")
LENGTHS = ("warmup_kimg", "decay_kimg", "ema_halflife_kimg")
BLOCKS = (
    "pretrain", "averages", "trajectories", "tuned", "tune", "experiments", "figures", "search",
)  # fmt: skip
NEAR = 1e-9  # to a budget that is given with the digits of a decimal


class Scale(NamedTuple):
    """The unit of a study in thousand images, and what a budget makes of it."""

    unit: int
    scaled: int

    @property
    def factor(self):
        return self.scaled / self.unit

    def exact(self, budget):
        """Whether the study has this budget, and not the nearest one that it can have."""
        return math.isclose(self.factor, budget, rel_tol=NEAR)


def scale_of(mapping, budget):
    """The `Scale` of a checked config, without `like`; raises `ValueError` where the budget is less
    than half of the unit's thousand images."""
    unit = math.gcd(*_whole_numbers({key: mapping.get(key) for key in BLOCKS}))
    if unit == 0 or unit * budget < 0.5:
        least = f"at least {1 / unit:.3g}, since" if unit else "none, as"
        raise ValueError(
            f"budget: found {budget:g}; allowed: {least} the study's numbers of images are"
            f" multiples of {unit} thousand"
        )
    return Scale(unit, max(1, round(unit * budget)))


def scaled(mapping, scale):
    """A checked config, without `like`, with its numbers of images on another scale."""
    return mapping | {key: _scaled(mapping[key], scale) for key in BLOCKS if key in mapping}


def _whole_numbers(value, key=None):
    """The numbers under the keys `WHOLE`, however deep."""
    if isinstance(value, dict):
        return [n for k, inner in value.items() for n in _whole_numbers(inner, k)]
    if isinstance(value, list):
        return [n for inner in value for n in _whole_numbers(inner, key)]
    return [value] if key in WHOLE and isinstance(value, int) else []


def _scaled(value, scale, key=None):
    if isinstance(value, dict):
        return {k: _scaled(inner, scale, k) for k, inner in value.items()}
    if isinstance(value, list):
        return [_scaled(inner, scale, key) for inner in value]
    if value is None or isinstance(value, str):
        return value
    if key in WHOLE:
        return value // scale.unit * scale.scaled
    return value * scale.factor if key in LENGTHS else value
