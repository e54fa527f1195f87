"""The maps t -> r that tie f(x_t) to f(x_r), as pure functions (t, progress, **options) -> r.

In this file t and r are noise levels s = sigma / alpha, tensors of shape (B,); elsewhere t is the
time of the process. `progress` in [0, 1) is the share of the run's images already seen. Every map
keeps 0 <= r < t, except those in `CONTINUOUS_TIME`: they name a loss of their own, a derivative at
r = t (ect/limit.py), or one of `TWO_TIMES`, whose r is drawn (ect/flowloss.py). In tuning r grows
towards t with progress; with r = 0 the target is the image itself and the run is pretraining.

`ct` and `ict` pair neighbours on a grid of noise levels; `SNAPS` holds the function that first
moves t up to this grid.

A new schedule is one function here, its line in `SCHEDULES`, and one line of config: its keyword
arguments are its options.
This file loads no torch, so that a config can be checked at once; t's own methods do the work.
"""

import functools
import itertools
import math

STEPS = 2048  # of the table of a truncated prior
LOW, HIGH, RHO = 0.002, 80.0, 7.0  # of a Karras grid of noise levels (EDM, eq. 5, table 1)
LN_S_EDGES = range(-6, 5)  # of the bins of ln s of logged residuals; outer bins are open


def zero(t, progress):
    """r = 0: diffusion or flow pretraining."""
    return t * 0


def constant(t, progress, q: float = 2.0, stages: int = 8):
    """r / t = 1 - q^-a in stage a = 1, 2, ...: the same ratio at every t (ECT's code, `const`)."""
    return t * (1 - q ** -_stage(progress, stages))


def sigmoid(t, progress, q: float = 2.0, stages: int = 8, k: float = 8.0, b: float = 1.0):
    """r / t = 1 - q^-a n(t), n(t) = 1 + k sigmoid(-b t), in stage a = 1, 2, ... (ECT, eq. 11)."""
    return _ratio(t, q ** -_stage(progress, stages), k, b)


def fixed(t, progress, q: float = 256.0, k: float = 8.0, b: float = 1.0):
    """`sigmoid` held at r / t = 1 - n(t) / q for the whole run (ECT's one-hour setting)."""
    return _ratio(t, 1 / q, k, b)


def smooth(t, progress, q: float = 2.0, stages: float = 8.0, k: float = 8.0, b: float = 1.0):
    """`sigmoid` without the staircase: r / t = 1 - q^-(stages progress) n(t)."""
    return _ratio(t, q ** -(stages * progress), k, b)


def logsnr(t, progress, q: float = 2.0, stages: int = 8, k: float = 8.0, cut: float = 4.0):
    """r / t = 1 - q^-a min(1 + k log2(1 + 1 / t^2), cut) (ECT's first release)."""
    n = (1 + k * (1 + t**-2).log2()).clamp(max=cut)
    return t * (1 - q ** -_stage(progress, stages) * n).clamp(min=0)


def power(t, progress, q: float = 2.0, stages: int = 8, k: float = 8.0, cut: float = 4.0):
    """r / t = 1 - q^-a min(1 + t^-k, cut) (ECT's first release)."""
    return t * (1 - q ** -_stage(progress, stages) * (1 + t**-k).clamp(max=cut)).clamp(min=0)


def piecewise(
    t, progress, start: float = 0.5, q: float = 2.0, stages: int = 9, k: float = 8.0, b: float = 1.0
):
    """Pretraining inside the run: r = 0 up to the share `start` of the run, then
    r / t = 1 - n(t) / q^a in stage a = 0, 1, ...

    n(t) >= 1, so r is 0 in stage a = 0 too.
    """
    a = _stage((progress - start) / (1 - start), stages) - 1 if progress > start else 0
    return _ratio(t, q**-a, k, b)


def ct(t, progress, s0: int = 2, s1: int = 150, low: float = LOW, high: float = HIGH):
    """The grid point before t, on N(progress) points (consistency training, Song et al. 2023)."""
    return _before(t, _ct_points(progress, s0, s1), low, high)


def ict(t, progress, s0: int = 10, s1: int = 1280, low: float = LOW, high: float = HIGH):
    """As `ct`, with iCT's doubling N(progress) (Song & Dhariwal 2024)."""
    return _before(t, _ict_points(progress, s0, s1), low, high)


def continuous(t, progress, warmup: float = 0.1, c: float = 0.1):
    """r = t: the limit of small steps, as sCM trains it (Lu and Song 2024): tangent warm-up over
    the share `warmup` of the run; the tangent is divided by its norm plus `c`."""
    return t


def meanflow(t, progress, pairs: float = 0.75, p: float = 1.0, c: float = 1e-3):
    """r = t, except in a share `pairs` of each batch, where r < t is a second draw. The error is
    weighted by (|error|^2 + c)^-p (Geng et al. 2025)."""
    return t


def imf(t, progress, pairs: float = 0.5, p: float = 1.0, c: float = 1e-2):
    """As `meanflow`, with the derivative along the network's own velocity (improved MeanFlow)."""
    return t


def soflow(
    t,
    progress,
    pairs: float = 1.0,
    p: float = 0.75,
    c: float = 1e-3,
    first: float = 1.0,
    last: float = 0.0003125,
):
    """f(x_t, t, r) against f(x_q, q, r), q = t - a (t - r), a share a of the way that falls from
    `first` to `last`; pairs, p and c as in `meanflow` (SoFlow)."""
    return t


def alphaflow(
    t,
    progress,
    pairs: float = 0.75,
    p: float = 1.0,
    c: float = 1e-3,
    start: float = 0.0,
    end: float = 1.0,
    gamma: float = 25.0,
):
    """From flow matching along the whole way, a = 1, to `meanflow`, a = 0: a = 1 - sigmoid(gamma
    (progress - (start + end) / 2) / (end - start)) (alpha-Flow)."""
    return t


def shortcut(t, progress, pairs: float = 0.25, p: float = 0.0, c: float = 1e-3, steps: int = 128):
    """A way of 1, 1/2, ..., 2 / `steps` is learned from two of half its length (shortcut models).
    `steps` is a power of 2."""
    return t


def psd(t, progress, pairs: float = 0.75, p: float = 0.0, c: float = 1e-3):
    """A way is learned from its two halves (progressive self-distillation)."""
    return t


def lsd(t, progress, pairs: float = 0.75, p: float = 0.0, c: float = 1e-3):
    """df/dr is the velocity at f(x_t, t, r) (Lagrangian self-distillation)."""
    return t


@functools.cache
def student_table(df, mean, std, low, high):
    """(u, P) of the prior `student`: with ln s = mean + std sqrt(df) sinh(u) Student's t has the
    density cosh(u)^-df in u; P is its distribution function on [low, high], by trapezoids."""
    first, last = (math.asinh((math.log(s) - mean) / (std * df**0.5)) for s in (low, high))
    u = [first + (last - first) * i / STEPS for i in range(STEPS + 1)]
    logs = [-df * (abs(v) + math.log1p(math.exp(-2 * abs(v)))) for v in u]
    density = [math.exp(one - max(logs)) for one in logs]
    sums = [0.0, *itertools.accumulate(a + b for a, b in itertools.pairwise(density))]
    return u, [one / sums[-1] for one in sums]


def _ct_points(progress, s0, s1):
    """N = ceil(sqrt(progress ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1."""
    return math.ceil(math.sqrt(progress * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1


def _ict_points(progress, s0, s1):
    """N = min(s0 2^j, s1) + 1, where j counts log2(floor(s1 / s0)) + 1 equal parts of the run."""
    doublings = math.floor(progress * (math.log2(s1 // s0) + 1) + 1e-9)
    return min(s0 * 2**doublings, s1) + 1


def _stage(progress, stages):
    """The stage 1, 2, ..., `stages` in which `progress` falls; the 1e-9 absorbs float rounding."""
    return min(int(progress * stages + 1e-9), stages - 1) + 1


def _ratio(t, decay, k, b):
    """r = t (1 - decay n(t)), n(t) = 1 + k sigmoid(-b t), not below 0."""
    return t * (1 - decay * (1 + k * (-b * t).sigmoid())).clamp(min=0)


def _index(t, points, low, high):
    """The index of the first point >= t among `points` of the grid, at least 1. A tolerance of a
    thousandth of a cell keeps a t that is a grid point, up to rounding, at its index."""
    first, last = low ** (1 / RHO), high ** (1 / RHO)
    position = (t ** (1 / RHO) - first) / (last - first) * (points - 1)
    return (position - 1e-3).ceil().clamp(min=1, max=points - 1)


def _level(index, points, low, high):
    """The noise level at an index 0 .. points - 1 of the Karras grid from `low` to `high`."""
    first, last = low ** (1 / RHO), high ** (1 / RHO)
    return (first + index / (points - 1) * (last - first)) ** RHO


def _before(t, points, low, high):
    """The grid point before the first one >= t; 0 for t <= `low`, where there is none."""
    r = _level(_index(t, points, low, high) - 1, points, low, high)
    return r * (r < t)


def _snap(points_of):
    """t -> the first grid point >= t. Under a lognormal prior the pairs are then drawn with the
    probabilities of iCT, erf((ln t - mean) / (sqrt 2 std)) - erf((ln r - mean) / (sqrt 2 std))."""

    def snap(t, progress, s0, s1, low, high):
        points = points_of(progress, s0, s1)
        return _level(_index(t, points, low, high), points, low, high)

    return snap


TWO_TIMES = ("meanflow", "imf", "soflow", "alphaflow", "shortcut", "psd", "lsd")
CONTINUOUS_TIME = ("continuous", *TWO_TIMES)
# Their losses differentiate the network along a path.
DIFFERENTIATED = ("continuous", "meanflow", "imf", "alphaflow", "lsd")
# (progress, s0, s1) -> N, the number of points, of the maps with a grid.
GRIDS = {"ct": _ct_points, "ict": _ict_points}
SNAPS = {"ct": _snap(_ct_points), "ict": _snap(_ict_points)}
SCHEDULES = {
    "zero": zero,
    "constant": constant,
    "sigmoid": sigmoid,
    "fixed": fixed,
    "smooth": smooth,
    "logsnr": logsnr,
    "power": power,
    "piecewise": piecewise,
    "ct": ct,
    "ict": ict,
    "continuous": continuous,
    "meanflow": meanflow,
    "imf": imf,
    "soflow": soflow,
    "alphaflow": alphaflow,
    "shortcut": shortcut,
    "psd": psd,
    "lsd": lsd,
}
