"""From the settings of a training run to its parts: objective, optimizer, rate."""

import functools
import json
import math

import torch

from ect import flowloss, limit, plugins
from ect.flowmap import JOINTS
from ect.models import build, trust
from ect.models.build import make_process
from ect.networks.compiled import tell
from ect.objective import PRIORS, WEIGHTS, Objective, PluginObjective, Truncated
from ect.ode import STEPS
from ect.runtime import device, record
from ect.runtime.seeds import generator_of
from ect.runtime.text import shown
from ect.runtime.versions import DEFAULTS, setting
from ect.schedule import SCHEDULES, SNAPS
from ect.training.distances import make_distance

# What makes f, and is equal in a start and in the run that goes on from it.
START = ("process", "parameterization", "c_noise", "c_in", "shape", "shift", "scale", "network")
# A network's keys that settings and files may lack.
NETWORK = {"architecture": "ddpmpp", "embedding": "positional"} | {
    key: DEFAULTS[key] for key in ("classes", "span", "uncertainty", "augment_labels")
}
# What is equal in all runs of a chain.
CHAIN = ("network", "process", "parameterization", "c_noise", "sd", "schedule", "target", "seed")
# What is equal in their recipes; averages may be others, and precision and kernels.
STEP = ("batch", "prior", "distance", "weight", "optimizer", "dropout", "dropout_at", "augment")


def check_plugin_map(described, bound):
    """Raises `ValueError` if a plugin's map, bound to its options, violates 0 <= r < s."""
    s = torch.logspace(-2.5, 1.9, 45, dtype=torch.float64)
    for progress in (0.0, 0.25, 0.5, 0.75, 0.99):
        r = bound(s, progress)
        for at, value in zip(s.tolist(), r.expand_as(s).tolist()):
            if not 0 <= value < at:
                raise ValueError(
                    f"{described}: r is {value:g} at s = {at:g}, progress {progress:g};"
                    " allowed: 0 <= r < s"
                )


def check_plugin_weight(weight, sd):
    """Have a plugin's guard look at its weights of some pairs (s, r), on the CPU; raises
    `ValueError` unless they are positive and finite."""
    s = torch.tensor([0.01, 1.0, 50.0])
    for share in (0.1, 0.5, 0.99):
        weight(s, share * s, sd)


def require_gap(objective, settings):
    """Raises `ValueError` if fp32 loses the gap of more than 2 % of pairs (s, r) at the end of a
    run, in noise levels or in the process's t. A config's own maps are checked before any job
    (ect/config/gaps.py)."""
    if not isinstance(objective, Objective):
        return  # the limit r -> t
    prior, end = settings["recipe"]["prior"], 1 - 2**-20
    s = PRIORS[prior["kind"]](generator_of("gap"), 4096, **prior["options"])
    s = objective.snap(s, end) if objective.snap else s
    r, time = objective.schedule(s, end), objective.process.time
    _refuse_lost((r >= s) | (time(r) >= time(s)), 0.02, "the end of the run", settings)


def require_gap_now(objective, terms, seen, settings):
    """Raises `ValueError` if most pairs (s, r) of a step have lost their gap."""
    if isinstance(objective, Objective):
        _refuse_lost(terms.r >= terms.s, 0.5, f"image {seen}", settings)


def _refuse_lost(lost, most, where, settings):
    share = lost.float().mean().item()
    if share > most:
        raise ValueError(
            f"schedule '{settings['schedule']['map']}': at {where} r is t, and the loss 0, for"
            f" {share:.0%} of the noise levels; allowed: 0 <= r < t, in fp32"
        )


def make_objective(settings, sd, teacher=None, pixels=None):
    """The loss of a cell, its schedule and distance bound to their options. `sd` is that of f, as
    `build.description` decides it. `teacher`, the frozen consistency function of the start, is used
    if the target is one step of its ODE, and in a second stage of tuning; `pixels` are those of
    `make_distance`."""
    recipe, schedule = settings["recipe"], settings["schedule"]
    process = make_process(settings)
    weight = plugins.with_plugins(WEIGHTS, "weight", settings)[recipe["weight"]]
    if recipe["weight"] not in WEIGHTS:
        check_plugin_weight(weight, sd)
    if schedule["map"] in limit.OBJECTIVES:
        options = schedule["options"] | derivative(recipe) | adaptive(settings)
        return limit.OBJECTIVES[schedule["map"]](process, weight, sd, **options)
    if schedule["map"] in flowloss.OBJECTIVES:
        options = schedule["options"] | derivative(recipe) | joint_of(recipe)
        return flowloss.OBJECTIVES[schedule["map"]](process, weight, sd, **options)
    added = plugins.load(settings.get("plugins", {}))["objective"]
    if schedule["map"] in added:
        loss = functools.partial(added[schedule["map"]], **schedule["options"])
        return PluginObjective(process, weight, sd, loss)
    maps = plugins.with_plugins(SCHEDULES, "schedule", settings)
    bound = on_clock(maps[schedule["map"]], schedule, process)
    if schedule["map"] not in SCHEDULES:
        check_plugin_map(maps[schedule["map"]].described, bound)
    truncate = setting(recipe, "truncate")
    kind = Truncated if truncate else Objective
    return kind(
        **({"frozen": teacher, **truncate} if truncate else {}),
        process=process,
        schedule=bound,
        distance=make_distance(recipe["distance"], pixels),
        weight=weight,
        sd=sd,
        snap=on_clock(SNAPS.get(schedule["map"]), schedule, process),
        step=STEPS.get(settings["target"]),
        teacher=teacher,
        shared_dropout=setting(recipe, "shared_dropout"),
        uncertain=setting(settings["network"], "uncertainty") and is_pretraining(settings),
    )


def compiled(f, objective):
    """f with its network compiled, and so those that `objective` evaluates beside it, on whole
    batches. A plugin's loss may differentiate f in any way, and is left as it is."""
    if isinstance(objective, PluginObjective):
        tell("a plugin's loss is computed without it")
        return f
    for name in ("teacher", "averaged", "frozen"):
        if (other := getattr(objective, name, None)) is not None:
            setattr(objective, name, build.compiled(other))
    if isinstance(objective, Objective):
        objective.unit = None
    return build.compiled(f)


def is_pretraining(settings):
    """Whether f is trained as a denoiser: with the map zero, and not on trajectories."""
    solved = setting(settings["recipe"], "trajectories") is not None
    return settings["schedule"]["map"] == "zero" and not solved


def needs_teacher(settings):
    """Whether the loss has a part of the frozen start."""
    return settings["target"] in STEPS or setting(settings["recipe"], "truncate") is not None


def derivative(recipe):
    """The option of a loss that differentiates the network by differences; {} in forward mode."""
    if setting(recipe, "derivative") == "jvp":
        return {}
    return {"step": setting(recipe, "derivative_step")}


def adaptive(settings):
    """The option of a loss that the network's u(t) weighs; {} without. Raises `ValueError` for a
    network that has none."""
    if not setting(settings["recipe"], "adaptive"):
        return {}
    if not setting(settings["network"], "uncertainty"):
        raise ValueError("adaptive is true, the network has no uncertainty; allowed: one with it")
    return {"adaptive": True}


def joint_of(recipe):
    """{"joint": (draw) -> (s, r)} of a recipe that names the joint prior of two times."""
    joint = setting(recipe, "joint")
    return {"joint": functools.partial(JOINTS[joint["kind"]], **joint["options"])} if joint else {}


def _require_same_f(init, about, wanted):
    """Raise `ValueError` unless the start's f, by its description `about`, is the one `wanted` by
    the settings and images: weights of the same shapes mean another function in another one."""
    for key in START:
        found, allowed = (one.get(key, DEFAULTS.get(key)) for one in (about, wanted))
        if key == "network":
            found, allowed = (NETWORK | one for one in (found, allowed))
        if found != allowed:
            found, allowed = (shown(json.dumps(value), 200) for value in (found, allowed))
            raise ValueError(
                f"{init}: the start's {key} is {found}; allowed: {allowed}, as the settings with"
                " these images have it"
            )


def on_clock(function, schedule, process):
    """A map (or a snap, or None) with its options, as a function of noise levels s. With the clock
    `time` it maps the process's t."""
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
        return torch.optim.Adam(parameters, **common, fused=device.current().type != "mps")
    return torch.optim.RAdam(parameters, **common, foreach=True)


def learning_rate(options, seen, total):
    """The rate after `seen` images of `total`: warm-up, plateau, and a decay if set: one over the
    root of the images seen (EDM2, eq. 67), or linear to the end."""
    rate = options["lr"]
    if options["warmup_kimg"] > 0:
        rate *= min(1.0, seen / (1000 * options["warmup_kimg"]))
    if options.get("decay") == "inverse_sqrt":
        return rate / math.sqrt(max(seen / (1000 * options["decay_kimg"]), 1.0))
    fallen = (seen / max(total, 1) - options["decay_from"]) / max(1 - options["decay_from"], 1e-9)
    return rate * (1 - (1 - options["lr_final"]) * max(fallen, 0.0))


def require_chain(path, settings):
    """Raise `ValueError` unless the run that left a state, by the record beside it, is of the same
    chain as one of these settings, if any. Returns that run's settings; None where none is known.
    """
    made = (record.of(path) or {}).get("settings") or {}
    if settings:
        _require_equal(path, CHAIN, made, settings)
        recipes = (one.get("recipe") or {} for one in (made, settings))
        _require_equal(path, STEP, *recipes)
    return made or None


def _require_equal(path, keys, made, settings):
    """Raise `ValueError` where the settings of the run that left a file have other values."""
    for key in keys if made else ():
        found, wanted = (one.get(key, DEFAULTS.get(key)) for one in (made, settings))
        if found != wanted and (key in made or key in (*DEFAULTS, "sd")):
            found, allowed = (shown(json.dumps(value), 200) for value in (found, wanted))
            raise ValueError(f"{path}: a run whose {key} is {found}; allowed: {allowed}")


def require_same_images(resume, data, digest):
    """Raise `ValueError` if the run that left a state had other images, by the record beside it."""
    inputs = (record.of(resume) or {}).get("inputs") if resume else None
    if inputs and digest not in inputs.values():
        found = f"a run on other images than those of {data}, by the record beside it"
        raise ValueError(f"{resume}: {found}; allowed: the images of its chain")


def _require_levels(network, side):
    """Raise `ValueError` for attention at sizes that no level of the network has, as a config's
    (ect/config/fits.py) is refused."""
    sizes = [side >> level for level in range(len(network["multipliers"]))]
    if absent := [size for size in network["attention"] if size not in sizes]:
        found = f"found {', '.join(map(str, absent))} for images of {side} x {side} pixels"
        allowed = f"the sizes of its levels, {', '.join(map(str, sizes))}"
        raise ValueError(f"network.attention: {found}; allowed: {allowed}")


def settings_with_start(settings, init, images):
    """Settings, completed for an imported start with what the config leaves open: the network and
    its meaning, which the file describes. Raises `ValueError` if they are for other images, or if
    the start's f has another sd than the settings give it."""
    about = build.read(init)[1] if init else {}
    if "network" in settings:
        _require_levels(settings["network"], images.shape[-1])
        sd = settings.get("sd", images.sd)
        if about.get("sd", sd) != sd:
            found = f"the start has sd {about['sd']:g}, the settings with these images {sd:g}"
            raise ValueError(f"{init}: {found}; allowed: equal ones")
        if init:
            _require_same_f(init, about, build.description(settings, images))
        return settings
    reads = {key: about[key] for key in ("shape", "shift", "scale")}
    dataset = {"shape": list(images.shape), "shift": images.shift, "scale": images.scale}
    if reads != dataset:
        raise ValueError(
            f"{init}: the model reads images as {reads}, the dataset has {dataset}; allowed: images"
            " of that shape, with dataset.normalize: unit"
        )
    parts = ("network", "process", "betas", "parameterization", "c_noise", "c_in", "sd", "s_min")
    named = settings.get("plugins", {})
    both = trust.granted(about, named) | named
    merged = {"plugins": both} if both else {}
    return settings | {key: about[key] for key in parts if key in about} | merged
