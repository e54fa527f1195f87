"""What the parts of a plugin may return: a check for each kind.

A check is a function (result, arguments) -> None, or the words of the mistake. Loads no torch until
it is called.
"""

from ect.runtime.text import shown


def anything(result, arguments):
    return None


def _unlike(result, like, shapes=None):
    """What keeps a result from being floats like the tensor `like`; None if nothing does."""
    import torch

    what = f"floats {tuple(like.shape)} on {like.device}, at most {like.dtype}"
    if not isinstance(result, torch.Tensor):
        return f"returned {shown(type(result).__name__)}; allowed: a tensor, {what}"
    fits = (
        result.is_floating_point() and torch.promote_types(result.dtype, like.dtype) == like.dtype
    )
    if fits and result.device == like.device and result.shape in (like.shape, *(shapes or ())):
        return None
    found = f"{result.dtype} {tuple(result.shape)} on {result.device}"
    return f"returned {found}; allowed: {what}"


def _levels(r, arguments):
    """Of a schedule; its levels are on the CPU, where a look at them costs nothing."""
    t = arguments[0]
    wrong = _unlike(r, t)
    if wrong or t.device.type != "cpu":
        return wrong
    bad = ~((r >= 0) & (r <= t))
    if not bad.any():
        return None
    row = int(bad.flatten().int().argmax())
    at = f"r is {float(r.flatten()[row]):g} at t = {float(t.flatten()[row]):g}"
    return f"{at}, progress {arguments[1]:g}; allowed: 0 <= r < t"


def _weights(weights, arguments):
    """Of a weight: at its job's first look, on the CPU; later a look would wait for a GPU."""
    s, r = arguments[:2]
    wrong = _unlike(weights, s)
    if wrong or s.device.type != "cpu":
        return wrong
    bad = ~((weights > 0) & weights.isfinite())
    if not bad.any():
        return None
    row = int(bad.int().argmax())
    at = f"{float(weights[row]):g} at s = {float(s[row]):g}, r = {float(r[row]):g}"
    return f"is {at}; allowed: positive and finite"


def _losses(losses, arguments):
    """Of an objective: a loss for each image, through which a gradient reaches f. On a GPU nobody
    looks at its sign: each step would wait for it."""
    import torch

    wrong = _unlike(losses, arguments[3])
    if wrong:
        return wrong
    if torch.is_grad_enabled() and not losses.requires_grad:
        return "returned losses without a gradient; allowed: ones that depend on f"
    if losses.device.type == "cpu" and (losses < 0).any():
        return f"returned a loss of {losses.min().item():g}; allowed: 0 or more"
    return None


def _images(x, arguments):
    import torch

    shape = tuple(arguments[2].shape[1:])
    if not isinstance(x, torch.Tensor):
        return f"returned {shown(type(x).__name__)}; allowed: a tensor of images {shape}"
    if tuple(x.shape) != shape or not x.is_floating_point():
        return f"returned {x.dtype} {tuple(x.shape)}; allowed: images {shape}, floats"
    broken = int((~x.isfinite()).flatten(1).any(1).sum())
    if broken:
        return f"returned {broken} of {len(x)} images that are not finite; allowed: finite ones"
    return None


def _features(found, arguments):
    import torch

    count = len(arguments[0])
    try:
        rows = torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError):
        return f"returned {shown(type(found).__name__)}; allowed: numbers ({count}, D)"
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] < 2:
        return (
            f"features of {count} images have the shape {tuple(rows.shape)}; allowed: ({count}, D),"
            " D >= 2"
        )
    if rows.is_complex() or not rows.isfinite().all():
        return f"features of {count} images are not finite real numbers; allowed: such numbers"
    return None


def _coefficients(both, arguments):
    if not isinstance(both, (tuple, list)) or len(both) != 2:
        return f"coefficients returned {shown(type(both).__name__)}; allowed: (alpha, sigma)"
    wrong = _times(both[0], arguments) or _times(both[1], arguments)
    return wrong and f"coefficients {wrong}"


def _rates(both, arguments):
    if not isinstance(both, (tuple, list)) or len(both) != 2:
        found = shown(type(both).__name__)
        return f"rates returned {found}; allowed: (alpha, sigma) and their slopes"
    return _coefficients(both[0], arguments) or _coefficients(both[1], arguments)


def _times(t, arguments):
    """Of a method (self, t or s) -> a tensor that is like its argument, or one number."""
    return _unlike(t, arguments[1], ((), (1,)))


CHECKS = {
    "schedule": _levels,
    "objective": _losses,
    "weight": _weights,
    "sampler": _images,
    "features": _features,
    "coefficients": _coefficients,
    "clock": _times,
    "time": _times,
    "rates": _rates,
}
KEEP = (_levels, _weights, _losses)  # checks of parts whose arguments are used after them
