"""How far apart two means of a few seeds may lie before they are a difference.

Both are means of runs of one recipe if, under that hypothesis, runs are normal with one variance.
Its estimate s^2 pools what is known of it: ours, the published one, and that of other published
lines of the same setting, each with n - 1 degrees of freedom. Then the difference of a mean of
n_1 runs and one of n_2 lies, in 95 of 100 such comparisons, within

    t(0.975; df) s sqrt(1 / n_1 + 1 / n_2),   df = sum (n - 1),   s^2 = sum (n - 1) sd^2 / df,

the prediction interval of Student's t: of one further run where n_2 = 1.
"""

import math
from typing import NamedTuple

LEVEL = 0.95


class Margin(NamedTuple):
    """The half-width of the interval, and the pooled sd and its degrees of freedom behind it."""

    width: float
    sd: float
    df: int


def margin(spreads, first, second):
    """The `Margin` of means of `first` and `second` runs; `spreads` are pairs (sd, n), of which
    those without a number or of one run tell nothing. None where nothing is known."""
    told = [(sd, n - 1) for sd, n in spreads if sd is not None and math.isfinite(sd) and n > 1]
    df = sum(free for _, free in told)
    if df == 0:
        return None
    sd = math.sqrt(sum(free * sd**2 for sd, free in told) / df)
    return Margin(quantile(df) * sd * math.sqrt(1 / first + 1 / second), sd, df)


def quantile(df):
    """The 97.5 % quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + LEVEL) / 2))
