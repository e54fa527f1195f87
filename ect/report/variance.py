"""Components of variance: how much of the spread is the seed's of pretraining, of tuning, of
sampling?

Random effects, nested: y_ijk = mean + P_i + T_ij + S_ijk, of pretraining i, tuning j of it, and set
of images k of that model, all independent. As y is ln FD, a standard deviation of 0.1 is 10 % of
FD. Estimators are those of the balanced analysis of variance, unbiased, so that they may be
negative; intervals are of the modified large-sample method (Burdick and Graybill 1992, Confidence
Intervals on Variance Components).
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

SOURCES = ("pretraining", "tuning", "sampling")
LEVEL = 0.05


class Squares(NamedTuple):
    """The mean squares of `SOURCES` and their degrees of freedom, of (I, J, K) values."""

    shape: tuple[int, int, int]
    squares: tuple[float, float, float]
    freedom: tuple[int, int, int]

    @classmethod
    def of(cls, shape, squares, freedom):
        """The same of lists, as a table or JSON has them."""
        return cls(tuple(shape), tuple(squares), tuple(freedom))


class Estimate(NamedTuple):
    """A variance and the ends of its interval of 95 %, which are not negative."""

    variance: float
    low: float
    high: float

    @property
    def sds(self):
        """The standard deviation and its ends; 0 where the variance is below."""
        return tuple(math.sqrt(max(0.0, value)) for value in self)


def squares(values):
    """The `Squares` of values (I, J, K), each at least 2. Raises `ValueError` on another shape."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(f"values are {values.shape}; allowed: (I, J, K), each at least 2")
    count, tunings, sets = values.shape
    of_model, of_start = values.mean(2), values.mean((1, 2))
    sums = (
        tunings * sets * ((of_start - values.mean()) ** 2).sum(),
        sets * ((of_model - of_start[:, None]) ** 2).sum(),
        ((values - of_model[:, :, None]) ** 2).sum(),
    )
    freedom = (count - 1, count * (tunings - 1), count * tunings * (sets - 1))
    found = [float(total / df) for total, df in zip(sums, freedom)]
    return Squares.of(values.shape, found, freedom)


def components(found):
    """{source: `Estimate`} of `Squares`, and that of one `replicate`, which varies all three."""
    alone = {source: _weights(found, {source: 1.0}) for source in SOURCES}
    return {key: combination(found, weights) for key, weights in alone.items()} | {
        "replicate": spread(found)
    }


def spread(found, pretraining=True, sets=1):
    """The `Estimate` of the variance of a value that is the mean of so many sets of images: between
    replicates or, without `pretraining`, between tunings of one start."""
    parts = {"pretraining": float(pretraining), "tuning": 1.0, "sampling": 1 / sets}
    return combination(found, _weights(found, parts))


def _weights(found, parts):
    """The weights of the mean squares whose sum is that of components times `parts`: as
    E(MS) = S, S + K T, S + K T + J K P from the last source to the first."""
    _, tunings, sets = found.shape
    start, tuning, sampling = (parts.get(source, 0.0) for source in SOURCES)
    first = start / (tunings * sets)
    second = tuning / sets - first
    return first, second, sampling - second - first


def combination(found, weights):
    """The `Estimate` of a weighted sum of expected mean squares, of either sign."""
    parts = [part for part in zip(weights, found.squares, found.freedom) if abs(part[0]) > 1e-12]
    total = sum(weight * square for weight, square, _ in parts)
    return Estimate(total, max(0.0, total - _reach(parts, 1)), max(0.0, total + _reach(parts, -1)))


def _reach(parts, side):
    """How far an end of the interval lies from the estimate: the lower where `side` is 1. The ends
    of a mean square alone are exact, MS df / chi^2; more are joined as by Ting et al. (1990)."""
    inside = sum((_share(df, side * weight > 0) * weight * ms) ** 2 for weight, ms, df in parts)
    plus = [part for part in parts if part[0] > 0]
    minus = [part for part in parts if part[0] < 0]
    for weight, ms, df in plus:
        for other, other_ms, other_df in minus:
            inside += _cross(df, other_df, side) * weight * ms * -other * other_ms
    return math.sqrt(max(0.0, inside))


@functools.cache
def _share(df, below):
    """The part of a mean square by which its expectation may be less, or more if not `below`."""
    if below:
        return 1 - df / stats.chi2.isf(LEVEL / 2, df)
    return df / stats.chi2.ppf(LEVEL / 2, df) - 1


@functools.cache
def _cross(df, other, side):
    """The term that makes the end of a difference exact where the other mean square is as large as
    the F quantile allows."""
    ratio = stats.f.isf(LEVEL / 2, df, other) if side > 0 else stats.f.ppf(LEVEL / 2, df, other)
    first, second = _share(df, side > 0), _share(other, side < 0)
    return ((1 - ratio) ** 2 - (first * ratio) ** 2 - second**2) / ratio
