"""What a model file says of its model: every key typed and bounded, before anything is built.

A description comes from another machine, so a wrong one would hang a job (blocks: 10^8) or draw
black images (sd: NaN). What reads a model file, imports one or exports one asks `require`.
"""

import reprlib
from contextlib import contextmanager
from types import SimpleNamespace

from ect import registry
from ect.consistency import C_NOISE, PARAMETERIZATIONS
from ect.networks.widths import HEADS_OF_64, attending, widths
from ect.process import BETAS, Tabulated
from ect.runtime.text import shown, shown_path

KEYS = ("network", "process", "parameterization", "shape", "sd", "shift", "scale")
DEPTH = 4  # of the options of a network of diffusers


class Foreign(ValueError):
    """A file holds something that its format does not allow, or that no network here supports."""

    def __init__(self, what, found, allowed):
        super().__init__(
            f"{shown(what)}: found {shown(found, 400)}; allowed: {shown(allowed, 800)}"
        )


@contextmanager
def named(path):
    """Names the file in what is `Foreign` about it."""
    try:
        yield
    except Foreign as error:
        raise ValueError(f"{shown_path(path)}: {error}") from None


def said(error):
    """An error's type and the first 200 characters of its first line, for our own messages."""
    return shown((f"{type(error).__name__}: {error}".splitlines() or [""])[0])


def brief(value):
    """`repr` of a foreign value, cut in length and depth: one that holds another one twice, which
    holds another one twice, ... would have 2^60 parts."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 120
    short.maxlevel, short.maxdict = 3, 8
    return short.repr(value)


def wanted(what, found, *allowed):
    """`found`, which must be one of `allowed`."""
    if found not in allowed:
        raise Foreign(what, brief(found), ", ".join(repr(value) for value in allowed))
    return found


def whole(low, high, step=1):
    """The rule (test, words) of a whole number."""
    words = f"a whole number from {low} to {high}" + (f", a multiple of {step}" if step > 1 else "")
    return lambda x: type(x) is int and low <= x <= high and x % step == 0, words


def number(low, high):
    """The rule of a finite number."""
    words = f"a number from {low:g} to {high:g}"
    return lambda x: type(x) in (int, float) and low <= x <= high, words


def one_of(names):
    """The rule of a name."""
    return lambda x: type(x) is str and x in names, ", ".join(names)


def several(rule, low, high):
    """The rule of a list."""
    one, words = rule

    def test(x):
        return type(x) is list and low <= len(x) <= high and all(map(one, x))

    return test, f"a list of {low} to {high}, each {words}"


def plain(value, depth=DEPTH):
    """Whether a value is bounded: a name, a number, or lists and mappings of such."""
    if isinstance(value, (list, dict)):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and len(inner) <= 128 and all(plain(one, depth - 1) for one in inner)
    if type(value) is str:
        return len(value) <= 100
    return value is None or type(value) is bool or number(-(2**31), 2**31)[0](value)


def is_shape(value):
    return type(value) is list and len(value) == 3 and all(
        whole(1, most)[0](side) for side, most in zip(value, (64, 4096, 4096))
    )  # fmt: skip


def are_plugins(value):
    return isinstance(value, dict) and len(value) <= 16 and all(
        type(path) is type(digest) is str and len(digest) == 64 for path, digest in value.items()
    )  # fmt: skip


def are_latents(value):
    rule = number(-1e6, 1e6)[0]
    return isinstance(value, dict) and sorted(value) == ["scale", "shift"] and all(
        type(part) is list and len(part) <= 64 and all(map(rule, part)) for part in value.values()
    )  # fmt: skip


def are_rising(value):
    least = whole(0, 1_000_000)[0]
    return type(value) is list and all(map(least, value)) and value == sorted(set(value))


BOOLEAN = (lambda x: type(x) is bool, "true, false")
MEANING = {
    "parameterization": one_of(PARAMETERIZATIONS),
    "shape": (is_shape, "[channels, height, width], of 64, 4096 and 4096 at most"),
    "sd": number(1e-6, 1e6),
    "shift": number(0, 255),
    "scale": number(1e-6, 1e6),
}
OPTIONAL = {
    "c_noise": one_of(C_NOISE),
    "c_in": one_of(("scaled", "one")),
    "s_min": number(1e-6, 79.0),
    "betas": (lambda x: isinstance(x, dict), "a mapping"),
    "plugins": (are_plugins, "{file: sha256}"),
    "latents": (are_latents, "{scale: [...], shift: [...]}, a number for each channel"),
    "trained_classes": (are_rising, "rising whole numbers, those of its classes"),
}
CHAIN = {
    "schedule": one_of(BETAS),
    "start": number(1e-8, 0.9999),
    "end": number(1e-8, 0.9999),
    "steps": whole(2, 100_000),
}
CLASSES = whole(0, 1_000_000)
UNET = {
    "channels": whole(8, 8192, 4),
    "multipliers": several(whole(1, 64), 1, 12),
    "blocks": whole(1, 64),
    "attention": several(whole(1, 4096), 0, 16),
}
UNET_OPTIONAL = {
    "architecture": one_of(registry.ARCHITECTURES),
    "embedding": one_of(registry.EMBEDDINGS),
    "classes": CLASSES,
    "span": (lambda x: type(x) is bool or x == "end", "true, false, end"),
    "augment_labels": whole(0, 64),
}
EDM2_OPTIONAL = {
    "architecture": one_of(("edm2",)),
    "classes": CLASSES,
    "uncertainty": BOOLEAN,
}
UNET2D = {
    "architecture": one_of(("unet2d",)),
    "config": (
        lambda x: isinstance(x, dict) and plain(x),
        "arguments of UNet2DModel: names, numbers, short lists",
    ),
    "steps": whole(1, 100_000),
    "classes": CLASSES,
}
UNET2D_CONFIG = {
    "layers_per_block": whole(1, 64),
    "block_out_channels": several(whole(1, 16384), 1, 12),
}


def require(about):
    """Raise `Foreign` unless a description is one that a model can have."""
    lacking = [key for key in KEYS if key not in about] if isinstance(about, dict) else KEYS
    if lacking:
        found = f"no {', '.join(lacking)} in its metadata"
        raise Foreign("content", found, "a model.safetensors that `train` or an import wrote")
    free = dict.fromkeys(("network", "process"), (lambda x: True, ""))
    fits("", about, free | MEANING, OPTIONAL)
    require_process(about)
    network = about["network"]
    if not isinstance(network, dict):
        raise Foreign("network", brief(network), "a mapping")
    if network.get("architecture") == "unet2d":
        fits("network.", network, UNET2D)
        fits("network.config.", network["config"], {}, UNET2D_CONFIG, more=True)
    else:
        edm2 = network.get("architecture") == "edm2"
        fits("network.", network, UNET, EDM2_OPTIONAL if edm2 else UNET_OPTIONAL)
        require_unet(network, about["shape"])
    require_trained(about)


def require_trained(about):
    """The classes that were trained are some of the network's."""
    trained, classes = about.get("trained_classes"), about["network"].get("classes", 0)
    if trained is not None and not (trained and trained[-1] < classes):
        allowed = f"some of its classes, 0 to {classes - 1}" if classes else "no such key"
        raise Foreign("trained_classes", f"{brief(trained)} of {classes} classes", allowed)


def fits(prefix, found, needed, optional=(), more=False):
    """Raise `Foreign` unless each key of a mapping is known, unless there may be `more`, and its
    value follows its rule."""
    rules = {**needed, **dict(optional)}
    for key in needed:
        if key not in found:
            raise Foreign(f"{prefix}{key}", "nothing", rules[key][1])
    for key, value in found.items():
        if key in rules and not rules[key][0](value):
            raise Foreign(f"{prefix}{key}", brief(value), rules[key][1])
        if key not in rules and not more:
            raise Foreign(f"{prefix}{key}", "an unknown key", ", ".join(rules))


def require_process(about):
    """The process is known, or a plugin's; f is defined on all of it."""
    process, form, known = about["process"], about["parameterization"], registry.PROCESSES
    owner = "plugins" if "plugins" in about else "betas" if "betas" in about else None
    if type(process) is not str or not (process in (*known, "tabulated") or owner == "plugins"):
        allowed = f"{', '.join(known)}, tabulated, or one of a plugin that it lists"
        raise Foreign("process", brief(process), allowed)
    wanted = {"tabulated": "betas"} | dict.fromkeys(known)
    if owner != wanted.get(process, "plugins"):
        found = f"{brief(process)} with {owner or 'neither'}"
        allowed = "betas for 'tabulated' alone, plugins for a process of a plugin alone"
        raise Foreign("process", found, allowed)
    if process == "tabulated":
        fits("betas.", about["betas"], CHAIN)
        if not Tabulated(**about["betas"]).ln_s.isfinite().all():
            raise Foreign("betas", brief(about["betas"]), "a chain whose noise levels are finite")
    elif registry.undefined(process, form):
        raise Foreign("parameterization", f"{form!r} with process {process!r}", "edm, velocity")


def require_unet(network, shape):
    """The network fits the images, and its group norms their widths."""
    sides, halvings = shape[1:], len(network["multipliers"]) - 1
    if sides[0] != sides[1] or sides[0] % 2**halvings:
        allowed = f"squares whose side can be halved {halvings} times, as the network does"
        raise Foreign("shape", f"{sides[0]} x {sides[1]}", allowed)
    if network["channels"] * max(network["multipliers"]) > 16384:
        found = f"{network['channels']} times {max(network['multipliers'])}"
        raise Foreign("network.channels", found, "at most 16384 times its largest multiplier")
    described = SimpleNamespace(**{"architecture": "ddpmpp"} | network)
    normed = [] if described.architecture == "edm2" else widths(described)
    odd = [width for width in normed if width % min(32, width // 4)]
    if described.architecture in HEADS_OF_64:
        odd += [width for width in attending(described, sides[0]) if width % max(width // 64, 1)]
    if odd:
        allowed = "widths that group norms and heads divide; multiples of 64 always fit"
        raise Foreign("network.channels", f"{network['channels']}, a layer of {odd[0]}", allowed)


def least_weights(network):
    """How many weights a network at least has: those of the last convolution of each block, 3 x 3
    from its width to itself."""
    if network.get("architecture") == "unet2d":
        config = network["config"]
        sizes, blocks = config.get("block_out_channels", []), config.get("layers_per_block", 1)
    else:
        sizes, blocks = [network["channels"] * m for m in network["multipliers"]], network["blocks"]
    return sum(2 * blocks * 9 * size**2 for size in sizes)
