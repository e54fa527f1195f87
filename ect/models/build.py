"""From a description to its parts: network, process, consistency function."""

import copy
import math
from contextlib import contextmanager
from numbers import Real

import torch

from ect import plugins
from ect.consistency import Consistency
from ect.flowmap import FlowMap
from ect.models import trust
from ect.models.about import Foreign, least_weights, named, require, said
from ect.networks.compiled import Compiled
from ect.networks.edm2 import EDM2
from ect.networks.unet import STYLES, UNet
from ect.networks.unet2d import UNet2D
from ect.process import S_MAX, VE, Flow, Process, Tabulated, VPCosine, VPLinear
from ect.runtime import checkpoint, device
from ect.runtime.seeds import seed_of
from ect.runtime.versions import setting

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHOWN = 4  # of the names that do not fit
NETWORKS = {**dict.fromkeys(STYLES, UNet), "edm2": EDM2}
PROCESSES = {"ve": VE, "flow": Flow, "vp_cosine": VPCosine, "vp_linear": VPLinear}


def build_network(network, shape, dropout=0.0, dropout_at=None):
    """The network that settings describe, for images of `shape` (C, H, W), on torch's default
    device and with weights from its default generator."""
    kind = network.get("architecture", "ddpmpp")
    options = {k: v for k, v in network.items() if k != "architecture"} | {"dropout": dropout}
    if kind == "unet2d":
        if dropout_at is not None:
            found = f"found {dropout_at} for a network of diffusers, which has one rate"
            raise ValueError(f"dropout_at: {found}; allowed: no such key")
        return UNet2D(**options)
    channels, height, width = shape
    if height != width or height % 2 ** (len(network["multipliers"]) - 1):
        halved = len(network["multipliers"]) - 1
        raise ValueError(
            f"found images of {height} x {width}; allowed: squares whose side can be halved"
            f" {halved} times, as the network does"
        )
    options |= {"dropout_at": dropout_at} | ({"architecture": kind} if kind in STYLES else {})
    return NETWORKS[kind](height, channels, **options)


def skeleton(network, shape):
    """The network of a description on the device `meta`: names and shapes without values. U-Nets
    are built without arithmetic: on `meta` that loads torch._dynamo, a second of every job."""
    with torch.device("meta"):
        return build_network(network, shape)


def parameters(network, shape):
    """How many parameters a network for images of `shape` (C, H, W) has."""
    return sum(weight.numel() for weight in skeleton(network, shape).parameters())


def make_network(network, shape, dropout=0.0, seed=0, dropout_at=None):
    """The network on this machine's device, with weights drawn from `seed`."""
    torch.manual_seed(seed_of(seed, "init"))
    model = build_network(network, shape, dropout, dropout_at)
    return model.to(device.current(), memory_format=torch.channels_last)


def make_process(settings):
    """The process that settings, or a model's description, name; `tabulated` from its betas."""
    name = settings["process"]
    if name == "tabulated":
        return Tabulated(**settings["betas"])
    return PROCESSES[name]() if name in PROCESSES else plugin_process(name, settings)


def plugin_process(name, settings):
    """A plugin's process; raises `ValueError` if it breaks a law that f and the samplers rely
    on: no noise at t = 0, and `time` the inverse of a clock that reaches `S_MAX`."""
    source = plugins.providing("process", name, settings).get("plugins")
    if not source:
        found = f"found {name!r}, which no listed plugin declares"
        raise ValueError(f"process: {found}; allowed: {', '.join(PROCESSES)}, or a plugin's")
    process_class = plugins.load(source)["process"][name]
    where = process_class.described
    if not issubclass(process_class, Process) or process_class.coefficients is Process.coefficients:
        raise ValueError(f"{where}; allowed: a subclass of Process with coefficients")
    s = torch.tensor([0.002, 0.05, 1.0, 20.0, S_MAX], dtype=torch.float64)
    with plugins.guard.running(*process_class.source):
        process = process_class()
        t_max = getattr(process, "t_max", None)
        if not isinstance(t_max, (Real, torch.Tensor)) or not 0 < float(t_max) < math.inf:
            found = "no t_max" if t_max is None else f"t_max is {t_max!r}"
            raise ValueError(f"{where}: {found}; allowed: a number")
        start = [float(value) for value in process.coefficients(torch.zeros(1))]
        levels = process.clock(process.time(s))
    if start != [1.0, 0.0]:
        raise ValueError(f"{where}: alpha, sigma are {start} at t = 0; allowed: 1, 0")
    if not torch.allclose(levels, s, rtol=1e-3):
        raise ValueError(f"{where}: clock(time(s)) is {levels.tolist()}; allowed: s = {s.tolist()}")
    return process


def make_consistency(network, process, about):
    """f of a model's description, a flow map where its network is told two times; older files lack
    c_noise and c_in, which are EDM's."""
    span = setting(about["network"], "span")
    return (FlowMap if span else Consistency)(
        network,
        process,
        about["parameterization"],
        about["sd"],
        c_noise=setting(about, "c_noise"),
        c_in=setting(about, "c_in"),
        span=span,
    )


def compiled(f):
    """The same function, by a network that is compiled. Raises `ValueError` where nothing can be
    compiled."""
    other = copy.copy(f)
    other.network = Compiled(f.network)
    return other


def description(settings, images):
    """What a model file says of itself: all it takes to rebuild f and to decode its images. An
    imported model keeps its betas, c_in, sd and s_min, a plugin's process its file and sha256.

    Its `sd` is that of f and of the loss in training: the settings' (of an import, or stated by a
    recipe), else the images'."""
    extra = {key: settings[key] for key in ("betas", "s_min") if key in settings}
    extra |= plugins.providing("process", settings["process"], settings)
    return extra | {
        "network": settings["network"],
        "process": settings["process"],
        "parameterization": settings["parameterization"],
        "c_noise": settings["c_noise"],
        "c_in": setting(settings, "c_in"),
        "shape": list(images.shape),
        "sd": settings.get("sd", images.sd),
        "shift": images.shift,
        "scale": images.scale,
    }


def fitted(weights, about):
    """`weights`, which must be finite and those of the network of a description, by name and shape.
    Raises `Foreign` for others, and for a description that no model has."""
    require(about)
    _require_enough(weights, about["network"])
    with buildable():
        model = skeleton(about["network"], about["shape"])
    require_match(weights, model.state_dict())
    return weights


def single(name, value):
    """A weight from elsewhere as a copy in float32. Raises `Foreign` for one that is no
    floating-point number: whole ones and truth values are codes of something else."""
    if value.dtype not in FLOATS:
        raise Foreign("weights", f"{name} of {value.dtype}", ", ".join(map(str, FLOATS)))
    return value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


@contextmanager
def buildable():
    """What torch or diffusers says of a network that cannot be built, as `Foreign`."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise Foreign("network", said(error), "one that can be built") from None


def _require_enough(weights, network):
    """Raises `Foreign` where the network described has more weights than there are, so that it is
    not built."""
    least, found = least_weights(network), sum(value.numel() for value in weights.values())
    if found < least:
        raise Foreign("weights", f"{found:,}", f"{least:,} or more, as the network described has")


def require_match(found, expected, what="weights", of="network described", exact=False):
    """Raise `Foreign` unless tensors have the names, shapes and kinds of number of those expected,
    which are of the thing `of`, and are finite. `exact` asks for the same type of number."""
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    actual = {name: tuple(value.shape) for name, value in found.items()}
    wrong = {
        "missing": sorted(shapes.keys() - actual.keys()),
        "unexpected": sorted(actual.keys() - shapes.keys()),
        "of another shape": [
            f"{name} {actual[name]} instead of {shapes[name]}"
            for name in sorted(shapes.keys() & actual.keys())
            if actual[name] != shapes[name]
        ],
    }
    if told := "; ".join(f"{kind}: {_some(names)}" for kind, names in wrong.items() if names):
        raise Foreign(what, told, f"the {len(shapes)} of the {of}")
    _require_numbers(found, expected, what, exact)


def _some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _require_numbers(found, expected, what, exact):
    for name, value in found.items():
        loose = expected[name].dtype in FLOATS and not exact
        kinds = FLOATS if loose else (expected[name].dtype,)
        if value.dtype not in kinds:
            raise Foreign(what, f"{name} of {value.dtype}", ", ".join(map(str, kinds)))
    if bad := [name for name, value in found.items() if not value.isfinite().all()]:
        raise Foreign(what, f"NaN or infinity in {_some(bad)}", "finite numbers")


def read(path):
    """(weights, about) of a model file; raises `ValueError` for a file that holds no model."""
    weights, about = checkpoint.load(path)
    with named(path):
        return fitted(weights, about), about


def load_model(path, files=()):
    """(f, process, about) from a model file: the consistency function in evaluation mode. `files`
    are plugins that it may use. Raises `ValueError` for a file that holds no model."""
    weights, about = checkpoint.load(path)
    return from_description(weights, about, path, files)


def from_description(weights, about, source="a model", files=()):
    """(f, process, about) from weights by name and a model's description, of the file `source`."""
    with named(source):
        require(about)
        granted = trust.granted(about, files)
        fitted(weights, about)  # before the network takes memory
        with buildable():
            network = make_network(about["network"], about["shape"])
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    process = make_process(about | {"plugins": granted})
    return make_consistency(network, process, about), process, about
