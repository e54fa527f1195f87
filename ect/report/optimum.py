"""The best share of a budget: where FD is least, how sure that is, and how it goes with the budget.

Distances are {share in percent: values of FD, one for each replicate, in the same order}.
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats

EXACT = 5  # replicates up to which every bootstrap sample is taken, 5^5 of them
SAMPLES = 3000  # bootstrap samples of more
COVER = 95  # percent of the bootstrap samples within a band
ASKED = 90  # the share that the question is about, in percent
LEAST_N, LEVEL = 3, 0.05


class Series(NamedTuple):
    """What has a best share of its own."""

    pretrain: str
    schedule: str
    recipe: str
    sampler: str


def series(rows):
    """{Series: {total in thousand images: distances}} of tuned models: mappings with the keys of
    `Series`, `total`, `share`, and the lists `seeds` and `values`. Of a total the seeds count that
    all of its shares have."""
    found = {}
    for row in rows:
        if row["schedule"]:
            key = Series(*(row[name] for name in Series._fields))
            values = dict(zip(row["seeds"], row["values"]))
            found.setdefault(key, {}).setdefault(row["total"], {})[row["share"]] = values
    return {key: {t: _paired(found[key][t]) for t in sorted(found[key])} for key in found}


def _paired(shares):
    """{share: values} of {share: {seed: value}}, for the seeds of all shares."""
    first, *others = shares.values()
    common = [seed for seed in first if all(seed in values for values in others)]
    return {share: [values[seed] for seed in common] for share, values in shares.items()}


class Best(NamedTuple):
    """The share with the least mean FD, and the ends of its bootstrap band (nan where n < 3)."""

    share: float
    low: float
    high: float
    n: int


def resampled(n):
    """Rows of n replicates, drawn with replacement (samples, n): all of them, or many."""
    if n <= EXACT:
        return np.array(list(product(range(n), repeat=n)))
    return np.random.default_rng(0).integers(n, size=(SAMPLES, n))


def shares_of(distances):
    """(shares (S,), FD (S, n)), in the order of shares."""
    shares = sorted(distances)
    return np.array(shares, dtype=float), np.array([distances[share] for share in shares])


def best(distances):
    """The `Best` share. A bootstrap sample takes whole replicates, so that shares stay paired."""
    shares, values = shares_of(distances)
    n = values.shape[1]
    found = shares[values.mean(1).argmin()]
    if n < LEAST_N:
        return Best(found, math.nan, math.nan, n)
    low, high = _band(shares[_bests(values, n)])
    return Best(found, low, high, n)


def _bests(values, n):
    """The index of the best share in each bootstrap sample (samples,)."""
    return values[:, resampled(n)].mean(2).argmin(0)


def _band(values):
    aside = (100 - COVER) / 2
    low, high = np.percentile(values, [aside, 100 - aside], method="nearest")
    return float(low), float(high)


def cost(distances, totals=1):
    """(FD at the share `ASKED` over FD at the best one, the ends of its interval, p) by a t-test
    of ln FD, paired by replicate, its variance the residual of share + replicate over all shares;
    p and interval are corrected for the other shares and the number of `totals` (Bonferroni). None
    where n < 3, nothing was measured at `ASKED`, or it is the best."""
    shares, values = shares_of(distances)
    (count, n), index = values.shape, values.mean(1).argmin()
    asked = np.flatnonzero(shares == ASKED)
    if n < LEAST_N or not len(asked) or index == asked[0] or (values <= 0).any():
        return None
    logs = np.log(values)
    apart = logs[asked[0]].mean() - logs[index].mean()
    rest = logs - logs.mean(1, keepdims=True) - logs.mean(0) + logs.mean()
    freedom, comparisons = (count - 1) * (n - 1), (count - 1) * totals
    error = math.sqrt(2 / n * (rest**2).sum() / freedom)
    half = error * stats.t.isf(LEVEL / comparisons / 2, freedom)
    p = 2 * stats.t.sf(abs(apart) / error, freedom) if error else float(apart == 0)
    ends = (float(np.exp(apart + aside)) for aside in (0, -half, half))
    return *ends, min(1.0, comparisons * float(p))


class Law(NamedTuple):
    """Best tuning = factor total^power, in thousand images; the ends of the power's band."""

    power: float
    low: float
    high: float
    factor: float

    def share(self, total):
        """The best share of pretraining in percent, by the law."""
        return 100 * (1 - self.factor * total ** (self.power - 1))

    def total(self, share=ASKED):
        """The total from which on the best share is at least `share` percent, or inf."""
        if self.power >= 1:
            return math.inf
        return float(np.exp(min(math.log((1 - share / 100) / self.factor) / (self.power - 1), 700)))


def law(distances):
    """The `Law` of {total: distances}, a line of least squares through ln of the best tuning
    against ln of the total, with the band of its power over bootstrap samples; None with fewer than
    three totals or replicates, or where totals have not as many."""
    totals = sorted(distances)
    parts = [shares_of(distances[total]) for total in totals]
    counts = {values.shape[1] for _, values in parts}
    if len(totals) < 3 or min(counts) < LEAST_N or len(counts) > 1:
        return None
    n = counts.pop()
    point = _line(totals, [s[v.mean(1).argmin()] for s, v in parts])
    picked = np.array([s[_bests(v, n)] for s, v in parts])
    powers = _line(totals, picked)[0]
    low, high = _band(powers)
    return Law(float(point[0]), low, high, float(np.exp(point[1])))


def _line(totals, shares):
    """(slope, intercept) of ln tuning against ln total; shares (totals,) or (totals, samples)."""
    tuned = np.asarray(totals, dtype=float) * (1 - np.asarray(shares).T / 100)
    return np.polynomial.polynomial.polyfit(np.log(totals), np.log(tuned.T), 1)[::-1]
