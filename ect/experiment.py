"""From a cell's settings to its parts: network, consistency function, objective, optimizer."""

import functools

import torch

from ect import checkpoint, limit, machine
from ect.consistency import Consistency
from ect.data import seed_of
from ect.network import UNet
from ect.objective import DISTANCES, WEIGHTS, Objective, huber
from ect.ode import STEPS
from ect.process import VE, Flow, VPCosine, VPLinear
from ect.schedule import SCHEDULES, SNAPS

PROCESSES = {"ve": VE, "flow": Flow, "vp_cosine": VPCosine, "vp_linear": VPLinear}


def make_network(network, shape, dropout=0.0, seed=0):
    """A U-Net for images of `shape` (C, H, W), with weights drawn from `seed`."""
    channels, height, width = shape
    if height != width or height % 2 ** (len(network["multipliers"]) - 1):
        raise ValueError(f"the network cannot halve {height} x {width} images often enough")
    torch.manual_seed(seed_of(seed, "init"))
    model = UNet(height, channels, **network, dropout=dropout)
    return model.to(machine.device(), memory_format=torch.channels_last)


def make_process(settings):
    """The process that settings, or a model's description, name."""
    return PROCESSES[settings["process"]]()


def make_objective(settings, sd, teacher=None):
    """The loss of a cell, its schedule and distance bound to their options. `teacher`, a frozen
    consistency function, is asked where the target is one step of its ODE."""
    recipe, schedule = settings["recipe"], settings["schedule"]
    process = make_process(settings)
    if schedule["map"] in limit.OBJECTIVES:
        weight, options = WEIGHTS[recipe["weight"]], schedule["options"]
        return limit.OBJECTIVES[schedule["map"]](process, weight, sd, **options)
    distance = DISTANCES[recipe["distance"]["kind"]]
    if distance is huber:
        distance = functools.partial(huber, c=recipe["distance"]["c"])
    return Objective(
        process=process,
        schedule=on_clock(SCHEDULES[schedule["map"]], schedule, process),
        distance=distance,
        weight=WEIGHTS[recipe["weight"]],
        sd=sd,
        snap=on_clock(SNAPS.get(schedule["map"]), schedule, process),
        step=STEPS.get(settings["target"]),
        teacher=teacher,
        shared_dropout=recipe.get("shared_dropout", True),
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
    parts = ("network", "process", "parameterization", "c_noise", "c_in", "sd")
    return settings | {key: about[key] for key in parts}


def make_consistency(network, process, about):
    """f of a model's description; files without c_noise and c_in are older, and EDM's."""
    told = (about.get("c_noise", "log_s"), about.get("c_in", "scaled"))
    span = about["network"].get("span", False)
    return Consistency(network, process, about["parameterization"], about["sd"], *told, span)


def describe(settings, images):
    """What a model file says of itself: all it takes to rebuild f and to decode its images. An
    imported model keeps its own c_in and sd."""
    return {
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
