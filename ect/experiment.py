"""From a cell's settings to its parts: network, consistency function, objective, optimizer."""

import functools

import torch

from ect import checkpoint, limit, machine, plugins
from ect.consistency import Consistency
from ect.data import seed_of
from ect.network import UNet
from ect.objective import DISTANCES, UNIT, WEIGHTS, Objective, huber
from ect.ode import STEPS
from ect.process import S_MAX, VE, Flow, Process, Tabulated, VPCosine, VPLinear
from ect.schedule import SCHEDULES, SNAPS
from ect.unet2d import UNet2D

PROCESSES = {"ve": VE, "flow": Flow, "vp_cosine": VPCosine, "vp_linear": VPLinear}


def build_network(network, shape, dropout=0.0):
    """The network that settings describe, for images of `shape` (C, H, W), on torch's own device
    and with weights from its default generator."""
    if network.get("architecture") == "unet2d":
        return UNet2D(**{k: v for k, v in network.items() if k != "architecture"}, dropout=dropout)
    channels, height, width = shape
    if height != width or height % 2 ** (len(network["multipliers"]) - 1):
        raise ValueError(f"the network cannot halve {height} x {width} images often enough")
    return UNet(height, channels, **network, dropout=dropout)


def skeleton(network, shape):
    """The network of a description without numbers: names and shapes alone."""
    with torch.device("meta"):
        return build_network(network, shape)


def parameters(network, shape):
    """How many parameters a network for images of `shape` (C, H, W) has."""
    return sum(weight.numel() for weight in skeleton(network, shape).parameters())


def make_network(network, shape, dropout=0.0, seed=0):
    """The network on this machine's device, with weights drawn from `seed`."""
    torch.manual_seed(seed_of(seed, "init"))
    model = build_network(network, shape, dropout)
    return model.to(machine.device(), memory_format=torch.channels_last)


def make_process(settings):
    """The process that settings, or a model's description, name; a table's from its betas."""
    name = settings["process"]
    if name == "tabulated":
        return Tabulated(**settings["betas"])
    return PROCESSES[name]() if name in PROCESSES else own_process(name, settings)


def own_process(name, settings):
    """A plugin's process; raises `ValueError` where it breaks a law on which f and the samplers
    rest: no noise at t = 0, and `time` the inverse of a clock that reaches `S_MAX`."""
    kind = plugins.added({}, "process", settings)[name]
    if not issubclass(kind, Process) or kind.coefficients is Process.coefficients:
        raise ValueError(f"process '{name}'; allowed: a subclass of Process with coefficients")
    if not hasattr(kind, "t_max"):
        raise ValueError(f"process '{name}': no t_max; allowed: a number")
    process, s = kind(), torch.tensor([0.002, 0.05, 1.0, 20.0, S_MAX], dtype=torch.float64)
    start = [float(value) for value in process.coefficients(torch.zeros(1))]
    if start != [1.0, 0.0]:
        raise ValueError(f"process '{name}': alpha, sigma are {start} at t = 0; allowed: 1, 0")
    found = process.clock(process.time(s))
    if not torch.allclose(found, s, rtol=1e-3):
        raise ValueError(
            f"process '{name}': clock(time(s)) is {found.tolist()}; allowed: s = {s.tolist()}"
        )
    return process


def require_own_map(name, bound):
    """Raises `ValueError` where a plugin's map, bound to its options, leaves 0 <= r < s."""
    s = torch.logspace(-2.5, 1.9, 45, dtype=torch.float64)
    for progress in (0.0, 0.25, 0.5, 0.75, 0.99):
        r = bound(s, progress)
        for at, found in zip(s.tolist(), r.expand_as(s).tolist()):
            if not 0 <= found < at:
                raise ValueError(
                    f"schedule '{name}': r is {found:g} at s = {at:g}, progress {progress:g};"
                    " allowed: 0 <= r < s"
                )


def require_own_weight(name, weight, sd):
    """Raises `ValueError` where a plugin's weights of n pairs (s, r) are not n finite numbers."""
    s = torch.tensor([0.01, 1.0, 50.0])
    found = weight(s, s / 2, sd)
    if found.shape != s.shape or not found.isfinite().all():
        raise ValueError(
            f"weight '{name}': {found.tolist()} at s = {s.tolist()}, r = s / 2; allowed: as many"
            " finite numbers"
        )


def make_objective(settings, sd, teacher=None):
    """The loss of a cell, its schedule and distance bound to their options. `teacher`, a frozen
    consistency function, is asked where the target is one step of its ODE."""
    recipe, schedule = settings["recipe"], settings["schedule"]
    process = make_process(settings)
    weight = plugins.added(WEIGHTS, "weight", settings)[recipe["weight"]]
    if recipe["weight"] not in WEIGHTS:
        require_own_weight(recipe["weight"], weight, sd)
    if schedule["map"] in limit.OBJECTIVES:
        return limit.OBJECTIVES[schedule["map"]](process, weight, sd, **schedule["options"])
    maps = plugins.added(SCHEDULES, "schedule", settings)
    bound = on_clock(maps[schedule["map"]], schedule, process)
    if schedule["map"] not in SCHEDULES:
        require_own_map(schedule["map"], bound)
    masked = recipe["dropout"] > 0 and settings["network"].get("architecture") == "unet2d"
    distance = DISTANCES[recipe["distance"]["kind"]]
    if distance is huber:
        distance = functools.partial(huber, c=recipe["distance"]["c"])
    return Objective(
        process=process,
        schedule=bound,
        distance=distance,
        weight=weight,
        sd=sd,
        snap=on_clock(SNAPS.get(schedule["map"]), schedule, process),
        step=STEPS.get(settings["target"]),
        teacher=teacher,
        shared_dropout=recipe.get("shared_dropout", True),
        unit=None if masked else UNIT,
    )


def on_clock(function, schedule, process):
    """A map (or a snap, or None) with its options, as a function of noise levels s: where its clock
    is `time`, through the process's own t."""
    if function is None:
        return None
    bound = functools.partial(function, **schedule["options"])
    if schedule["clock"] == "noise":
        return bound
    return lambda s, progress: process.clock(bound(process.time(s), progress))


def make_optimizer(options, parameters):
    """Adam or RAdam at the config's rate and betas."""
    common = {"lr": options["lr"], "betas": tuple(options["betas"]), "eps": 1e-8}
    if options["name"] == "adam":
        return torch.optim.Adam(parameters, **common, fused=machine.device().type != "mps")
    return torch.optim.RAdam(parameters, **common, foreach=True)


def learning_rate(options, seen, total):
    """The rate after `seen` images of `total`: warm-up, plateau, and a linear fall if asked."""
    rate = options["lr"]
    if options["warmup_kimg"] > 0:
        rate *= min(1.0, seen / (1000 * options["warmup_kimg"]))
    fallen = (seen / max(total, 1) - options["decay_from"]) / max(1 - options["decay_from"], 1e-9)
    return rate * (1 - (1 - options["lr_final"]) * max(fallen, 0.0))


def completed(settings, init, images):
    """Settings with what a config leaves open: for an imported start, the network and the meaning
    that its file describes. Raises `ValueError` if it reads other images than the dataset's."""
    if "network" in settings:
        return settings
    about = checkpoint.load(init)[1]
    reads = {key: about[key] for key in ("shape", "shift", "scale")}
    given = {"shape": list(images.shape), "shift": images.shift, "scale": images.scale}
    if reads != given:
        raise ValueError(
            f"{init}: the model reads images as {reads}, the dataset has {given}; allowed: images"
            " of that shape, with dataset.normalize: unit"
        )
    parts = ("network", "process", "betas", "parameterization", "c_noise", "c_in", "sd")
    both = about.get("plugins", {}) | settings.get("plugins", {})
    own = {"plugins": both} if both else {}
    return settings | {key: about[key] for key in parts if key in about} | own


def make_consistency(network, process, about):
    """f of a model's description; files without c_noise and c_in are older, and EDM's."""
    told = (about.get("c_noise", "log_s"), about.get("c_in", "scaled"))
    span = about["network"].get("span", False)
    return Consistency(network, process, about["parameterization"], about["sd"], *told, span)


def describe(settings, images):
    """What a model file says of itself: all it takes to rebuild f and to decode its images. An
    imported model keeps its betas, c_in and sd, a process of a plugin its file and sha256."""
    own = {"betas": settings["betas"]} if "betas" in settings else {}
    own |= plugins.bringing("process", settings["process"], settings)
    return own | {
        "network": settings["network"],
        "process": settings["process"],
        "parameterization": settings["parameterization"],
        "c_noise": settings["c_noise"],
        "c_in": settings.get("c_in", "scaled"),
        "shape": list(images.shape),
        "sd": settings.get("sd", images.sd),
        "shift": images.shift,
        "scale": images.scale,
    }


def load_model(path):
    """(f, process, about) from a model file: the consistency function in evaluation mode."""
    weights, about = checkpoint.load(path)
    return restore(weights, about)


def restore(weights, about):
    """(f, process, about) from weights by name and a model's description."""
    network = make_network(about["network"], about["shape"])
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    process = make_process(about)
    return make_consistency(network, process, about), process, about
