"""The maps t -> r that tie f(x_t) to f(x_r), as pure functions (t, progress, **options) -> r.

`t` is a tensor of noise levels s = sigma / alpha, shape (B,); `progress` in [0, 1) is the share of
the run's images already seen. Every map keeps 0 <= r < t. A run tunes because r grows towards t as
progress grows; with r = 0 the target is the image itself and the run is pretraining.

A new schedule is one function here and one line of config: its keyword arguments are its options.
This file imports nothing, so that a config can be checked without loading torch.
"""


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


def piecewise(
    t, progress, start: float = 0.5, q: float = 2.0, stages: int = 9, k: float = 8.0, b: float = 1.0
):
    """Pretraining inside the run: r = 0 up to the share `start`, then 1 - n(t) / q^a, a = 0, 1, ...

    n(t) >= 1, so r stays 0 through stage a = 0 as well.
    """
    a = _stage((progress - start) / (1 - start), stages) - 1 if progress > start else 0
    return _ratio(t, q**-a, k, b)


def _stage(progress, stages):
    """The stage 1, 2, ..., `stages` in which `progress` falls; the 1e-9 absorbs float rounding."""
    return min(int(progress * stages + 1e-9), stages - 1) + 1


def _ratio(t, decay, k, b):
    """r = t (1 - decay n(t)), n(t) = 1 + k sigmoid(-b t), not below 0."""
    return t * (1 - decay * (1 + k * (-b * t).sigmoid())).clamp(min=0)


SCHEDULES = {f.__name__: f for f in (zero, constant, sigmoid, fixed, smooth, piecewise)}
