"""Whether the gap t - r of a schedule outlives fp32, in which jobs compute it. Loads no torch.

Where r rounds to t, both sides of the loss are the same and it is exactly 0: such a run learns
nothing and ends well. So the maps of ect/schedule.py are evaluated at quantiles of the prior, as
fp32 rounds and in double precision; a gap is lost where the two differ by all of it. Gaps are
smallest at the end of a run. A plugin's map is checked by its job (ect/training/parts.py).
"""

import bisect
import ctypes
import math
from statistics import NormalDist

from ect.schedule import CONTINUOUS_TIME, HIGH, LOW, RHO, SCHEDULES, SNAPS, student_table

END = 1 - 2**-20  # the progress of the last step
QUANTILES = [i / 100 for i in range(1, 100)]  # of the prior: 2 images in 100 are beyond them
SAME = 0.01  # the part by which last gaps may differ and still be one
WIDER = {"stages": "fewer stages", "q": "a smaller q", "s1": "a smaller s1"}  # a wider gap


def _rounded(operation):
    """A method that computes in double precision, and rounds; what overflows is infinite."""

    def method(self, *others):
        try:
            value = operation(float(self), *(float(type(self)(other)) for other in others))
        except (OverflowError, ZeroDivisionError):
            value = math.inf
        return type(self)(value)

    return method


class Double(float):
    """A number with those methods of a tensor that maps and processes use."""

    __add__ = __radd__ = _rounded(float.__add__)
    __mul__ = __rmul__ = _rounded(float.__mul__)
    __sub__, __rsub__ = _rounded(float.__sub__), _rounded(float.__rsub__)
    __truediv__, __rtruediv__ = _rounded(float.__truediv__), _rounded(float.__rtruediv__)
    __pow__, __neg__ = _rounded(float.__pow__), _rounded(float.__neg__)
    sigmoid = _rounded(lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0)
    log2 = _rounded(lambda x: math.log2(x) if x > 0 else -math.inf)
    ceil = _rounded(lambda x: math.ceil(x) if math.isfinite(x) else x)
    log1p, atan, sqrt = _rounded(math.log1p), _rounded(math.atan), _rounded(math.sqrt)

    def clamp(self, min=-math.inf, max=math.inf):
        return type(self)(min if self < min else max if self > max else self)


class Single(Double):
    """The same in fp32."""

    def __new__(cls, value):
        return super().__new__(cls, ctypes.c_float(value).value)


def _vp_linear(s, beta_d=19.9, beta_min=0.1):
    exponent = (s**2).log1p()
    return 2 * exponent / (beta_min + (beta_min**2 + 2 * beta_d * exponent).sqrt())


TIMES = {  # s -> the process's t, as in ect/process.py, which loads torch
    "ve": lambda s: s,
    "flow": lambda s: s / (1 + s),
    "vp_cosine": lambda s: s.atan() * 2 / math.pi,
    "vp_linear": _vp_linear,
}


def check(config):
    """Raise `ValueError` at the first schedule whose gap a run of the study loses."""
    seen = {}
    for model in config.all_tuned():
        seen[model.schedule, model.recipe, config.block_of(model.start.pretrain).process] = None
    for name, recipe, process in seen:
        block = config.schedules[name]
        if _stays_zero(block, levels(config.tune[recipe].prior.resolved()), process):
            raise ValueError(
                f"schedules.{name}: found r = 0 at every level to the end of a run of '{recipe}',"
                " as in pretraining; allowed: options by which r rises, or the map zero"
            )
        level = lost(block, levels(config.tune[recipe].prior.resolved()), process)
        if level is not None:
            options = {key: value for key, value in block.options().items() if key in WIDER}
            found = ", ".join(f"{key} {value:g}" for key, value in options.items())
            where = f"s = {level:.3g}" + (f" of process {process}" if process else "")
            raise ValueError(
                f"schedules.{name}: found {found}, by which fp32 rounds r to t at {where} at the"
                f" end of a run of '{recipe}', and the loss there is 0; allowed:"
                f" {' or '.join(WIDER[key] for key in options)}"
            )


def levels(prior):
    """The noise levels at `QUANTILES` of a prior's settings."""
    options = prior["options"]
    if prior["kind"] == "lognormal":
        normal = NormalDist(options["mean"], options["std"])
        return [2.0 ** min(normal.inv_cdf(q) / math.log(2), 1000.0) for q in QUANTILES]
    if prior["kind"] == "student":
        u, shares = student_table(**{"high": HIGH} | options)
        scale = options["std"] * options["df"] ** 0.5
        found = (u[bisect.bisect(shares, q) - 1] for q in QUANTILES)
        return [math.exp(options["mean"] + scale * math.sinh(v)) for v in found]
    first, last = (options.get(k, v) ** (1 / RHO) for k, v in (("low", LOW), ("high", HIGH)))
    return [(first + q * (last - first)) ** RHO for q in QUANTILES]


def median(prior):
    """The median noise level of a prior's settings."""
    return levels(prior)[len(QUANTILES) // 2]


def last(block, level):
    """The last gap of a schedule's block: (s - r) / s at the end of a run, at a noise level s."""
    t = Double(level)
    if block.map in SNAPS:
        t = SNAPS[block.map](t, END, **block.options())
    return float(1 - SCHEDULES[block.map](t, END, **block.options()) / t)


def distinct(values):
    """The distinct ones of some gaps, ascending: those within a part of `SAME` count as one."""
    found = []
    for value in sorted(values):
        if not found or value > found[-1] * (1 + SAME):
            found.append(value)
    return found


def matched(block, gap, level):
    """The q that gives a schedule's block the last gap `gap` at a noise level, by bisection in
    ln q. Raises `ValueError` where the map has no q, or none up to a billion does."""
    options = block.options()
    if "q" not in options:
        raise ValueError(f"map is {block.map}, which has no q; allowed: maps with q")
    low, high = 0.0, math.log(1e9)

    def above(exponent):
        q = Double(math.exp(exponent))
        return 1 - SCHEDULES[block.map](Double(level), END, **options | {"q": q}) / level - gap

    if not above(high) <= 0 <= above(low):
        raise ValueError(f"gap is {gap:g} at s = {level:g}; allowed: what a q from 1 to 1e9 gives")
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 0 else (low, middle)
    return math.exp(high)


def lost(block, noise_levels, process=None):
    """The first of some noise levels at which the gap of a schedule's block is lost, or None. Those
    that fp32 does not hold are left out, as is a map of a plugin or of a process's unknown time."""
    time, by_time = TIMES.get(process), block.clock == "time"
    if block.map not in SCHEDULES or block.map in CONTINUOUS_TIME or (by_time and not time):
        return None
    for level in noise_levels:
        t = Single(level)
        t = time(t) if by_time else t
        if 0 < t < math.inf and _is_lost(block, t, None if by_time else time):
            return level
    return None


def _stays_zero(block, noise_levels, process):
    """Whether a map other than zero leaves r at 0 at all of some noise levels until the end."""
    time, by_time = TIMES.get(process), block.clock == "time"
    known = block.map in SCHEDULES and block.map not in (*CONTINUOUS_TIME, "zero")
    if not known or (by_time and not time):
        return False
    for level in noise_levels:
        t = time(Double(level)) if by_time else Double(level)
        t = SNAPS[block.map](t, END, **block.options()) if block.map in SNAPS else t
        if SCHEDULES[block.map](t, END, **block.options()) > 0:
            return False
    return True


def _is_lost(block, t, time):
    """Whether fp32 loses the gap at t, or that of its times."""
    options = block.options()
    if block.map in SNAPS:
        t = SNAPS[block.map](t, END, **options)
    rounded, exact = (SCHEDULES[block.map](kind(t), END, **options) for kind in (Single, Double))
    wrong = abs(float(rounded) - float(exact)) >= float(t) - float(exact)
    return wrong or (time is not None and time(rounded) >= time(t))
