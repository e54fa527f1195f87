"""What a foreign file must be: values among those allowed, weights that fit their network."""

from ect.models import build

SHOWN = 4  # of the names that do not fit


class Foreign(ValueError):
    """A file holds something that its format does not allow, or that no network here supports."""

    def __init__(self, what, found, allowed):
        super().__init__(f"{what}: found {found}; allowed: {allowed}")


def said(error):
    """An error's type and the first 200 characters of its first line, for our own messages."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def wanted(what, found, *allowed):
    """`found`, which must be one of `allowed`."""
    if found not in allowed:
        raise Foreign(what, repr(found), ", ".join(repr(value) for value in allowed))
    return found


def fitted(weights, network, shape):
    """`weights`, which must be those of the network of a model's description, by name and shape."""
    model = build.skeleton(network, shape)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    actual = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = {
        "missing": sorted(expected.keys() - actual.keys()),
        "unexpected": sorted(actual.keys() - expected.keys()),
        "of another shape": [
            f"{name} {actual[name]} instead of {expected[name]}"
            for name in sorted(expected.keys() & actual.keys())
            if actual[name] != expected[name]
        ],
    }
    if found := "; ".join(f"{kind}: {_some(names)}" for kind, names in wrong.items() if names):
        raise Foreign("weights", found, f"the {len(expected)} of the network described")
    return weights


def _some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
