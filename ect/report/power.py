"""How many replicates does a difference need? The power of a two-sided t-test, from the noncentral
t. The test is of ln FD, of two means whose n values each have a standard deviation `sd`.

Comparisons are corrected by Bonferroni, as in sentences. Rows that are paired by seed may have a
smaller spread between them; it is not known beforehand, so none is assumed.
"""

import math

from scipy import optimize, stats

LEVEL, POWER, LEAST_N, MOST_N = 0.05, 0.8, 3, 10**6
FAR, ONE_SIDED = 100.0, 5.0  # noncentralities beyond which the power is 1, or of one side alone


def power(ratio, sd, n, comparisons=1, freedom=None):
    """The probability that the test tells a ratio of two FDs from 1. `freedom` are its degrees of
    freedom; without it n - 1, of a paired test."""
    freedom = n - 1 if freedom is None else freedom
    apart = abs(math.log(ratio))
    if apart == 0 or sd == 0:
        return LEVEL / comparisons if apart == 0 else 1.0
    noncentral = apart / (sd * math.sqrt(2 / n))
    if noncentral > FAR:
        return 1.0
    edge = stats.t.isf(LEVEL / comparisons / 2, freedom)
    other = stats.nct.cdf(-edge, freedom, noncentral) if noncentral < ONE_SIDED else 0.0
    return float(stats.nct.sf(edge, freedom, noncentral) + other)


def replicates(ratio, sd, comparisons=1, freedom=None):
    """The least n, from 3 on, with a power of 80 %; None above a million. `freedom(n)` are the
    degrees of freedom."""

    def enough(n):
        return power(ratio, sd, n, comparisons, freedom and freedom(n)) >= POWER

    low, high = LEAST_N - 1, LEAST_N
    while not enough(high):
        if high > MOST_N:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def told(sd, n, comparisons=1, freedom=None):
    """The least ratio above 1 that n replicates tell with a power of 80 %."""

    def lacking(apart):
        return power(math.exp(apart), sd, n, comparisons, freedom and freedom(n)) - POWER

    most = sd * math.sqrt(2 / n)
    while lacking(most) < 0:
        most *= 2
    return math.exp(optimize.brentq(lacking, 0.0, most))
