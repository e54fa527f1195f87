"""The settings that each job receives: all that its bits depend on besides its inputs.

One function for each verb of the command line. Loads no torch.
"""

import json
import shlex

from ect.config import gaps
from ect.config.augment import chain_labels
from ect.config.cells import Tuned
from ect.config.training import Recipe
from ect.runtime.versions import DEFAULTS, EDM_FILES, MASKS, NATIVE, STAGES


def train(config, model):
    """The settings of the run that trains `model`. Those of a milestone do not say where its chain
    ends."""
    return _tune(config, model) if isinstance(model, Tuned) else _pretrain(config, model)


def _tune(config, model):
    recipe = _recipe(config.tune[model.recipe])
    snapshots, target = recipe.pop("snapshots"), recipe.pop("target")
    network, schedule = _network(config, model.start.pretrain), config.schedules[model.schedule]
    used = {
        "process": network.get("process"),
        "weight": recipe["weight"],
        "schedule": schedule.map,
        "objective": schedule.map,
    }
    return {
        **network,
        "recipe": recipe,
        "schedule": schedule.resolved(),
        "target": target,
        "seed": model.seed,
        "first_kimg": 0,
        "last_kimg": model.kimg,
        "snapshots": snapshots,
        **_start_sd(config, model),
        **_plugins(config, used),
    }


def _start_sd(config, model):
    """{"start_sd": True} where the loss of an imported start reads sd: the start's. Before this key
    it was the dataset's, so these runs alone are not those of before. A `state_dict` has the
    dataset's sd unless the config states one."""
    start = config.init.get(model.start.pretrain)
    if start is None or (start.format == "state_dict" and start.sd is None):
        return {}
    own = config.has_own_loss(model.schedule)
    return {"start_sd": True} if own or config.tune[model.recipe].weight_reads_sd else {}


def _pretrain(config, model):
    chain = config.pretrain[model.pretrain]
    keys = {*Recipe.model_fields, "masks"}
    recipe = {key: value for key, value in _recipe(chain).items() if key in keys}
    return {
        **_network(config, model.pretrain),
        "recipe": recipe,
        "schedule": {"map": "zero", "options": {}, "clock": "noise"},
        "target": "own",
        "seed": model.seed,
        "first_kimg": chain.before(model.kimg),
        "last_kimg": model.kimg,
        "snapshots": 0,
        **_plugins(config, {"process": chain.process, "weight": chain.weight}),
    }


def _recipe(block):
    """A recipe's settings, without defaults: a new key does not change the settings of others."""
    settings = block.model_dump() | {"prior": block.prior.resolved()}
    if settings.get("joint"):
        settings["joint"] = block.joint.resolved()
    if settings["kernels"] == "native":
        settings["kernels"] = f"native-{NATIVE}"
    if settings["dropout"] > 0:
        settings["masks"] = MASKS
    return {k: v for k, v in settings.items() if k not in DEFAULTS or v != DEFAULTS[k]}


def _network(config, name):
    """The network, and how f is made of it; {} for a start that is one model: see its file."""
    if name in config.given:
        return {}
    chain = config.pretrain[name]
    parts = {key: getattr(chain, key) for key in ("process", "parameterization", "c_noise")}
    stated = {} if chain.sd is None else {"sd": chain.sd}
    network = config.networks[chain.network].resolved()
    if labels := chain_labels(config, chain):
        network["augment_labels"] = labels
    return {"network": network, **parts, **stated}


def _plugins(config, used):
    """{"plugins": {file: sha256}} of the plugins that define the parts `used`, {kind: name or
    names}; {} if none does. So a job depends only on the plugins that it uses."""
    named = [(kind, n) for kind, ns in used.items() for n in (ns if isinstance(ns, list) else [ns])]
    parts = [config.plugin_parts.get(kind, {}).get(name) for kind, name in named]
    digests = dict(sorted((part.path, part.digest) for part in parts if part))
    return {"plugins": digests} if digests else {}


def reconstruct_average(config, name):
    """The settings of the job that reconstructs an average of another length: this one, and those
    that the milestones keep."""
    block = config.averages[name]
    return {"ema_std": block.ema_std, "stored": config.pretrain[block.pretrain].ema_std}


def solve_trajectories(config, name):
    """The settings of the job that solves trajectories of a pretrained model."""
    block = config.trajectories[name]
    return block.model_dump(exclude={"pretrain", "kimg"}) | _computed(config)


def import_model(config, name):
    """The arguments of `import-model` for a start, without its input file: the format, and what the
    file does not say."""
    block = config.init[name]
    if block.format == "diffusers":
        return shlex.join([block.format, block.file])
    if block.format == "state_dict":
        network = config.networks[block.network].resolved()
        about = json.dumps(block.meaning() | {"network": network}, separators=(",", ":"))
        return shlex.join([block.format, "--about", about])
    return block.format


def import_version(config, name):
    """The version of the job that imports a start."""
    return STAGES["import"] + (EDM_FILES if config.init[name].format == "edm" else 0)


def sample(config, sampler, repeat=0, replicate=0):
    """The settings of a job that samples images: of a replicate's first set, or a later one."""
    block = config.samplers[sampler]
    seeds = config.evaluation.model_dump(include={"images", "batch", "seed"})
    seeds["seed"] = config.evaluation.first_seed(repeat, replicate)
    return {
        "kind": block.kind,
        "options": block.options(),
        "labels": block.labels,
        **seeds,
        **_computed(config),
        **_plugins(config, {"sampler": block.kind}),
    }


def _computed(config):
    """How the sampled network is computed, where that is not the default."""
    block = config.evaluation.model_dump(include={"precision", "compile"})
    return {key: value for key, value in block.items() if value != DEFAULTS[key]}


def save_samples(config, sampler, repeat, replicate=0):
    """The settings of a job that writes samples.npz: of all images or, where the config does not
    export it, of those that the figure of samples shows."""
    settings = sample(config, sampler, repeat, replicate)
    if "npz" not in config.evaluation.export:
        settings["images"] = min(settings["images"], config.figures.grid_columns)
    return settings


def train_classifier(config):
    """The settings of the job that trains the classifier; {} without one."""
    block = config.features.classifier
    return block.resolved() if block else {}


def extract(config, sampler=None, repeat=0, replicate=0):
    """The settings of a job that extracts features: of samples.npz or the training images, or,
    where the config does not export that, of a sampler's images."""
    settings = {"features": feature_space(config)}
    if sampler is not None and "npz" not in config.evaluation.export:
        settings["sampling"] = sample(config, sampler, repeat, replicate)
    return settings


def feature_space(config):
    """The settings of the feature space, for every job that extracts features."""
    others = {"classifier"} | ({"dinov2_path"} if config.features.dinov2_path is None else set())
    block = config.features.model_dump(exclude=others)
    return block | _plugins(config, {"features": config.features.extractor})


def _measured_space(config):
    """The feature space, and what the kernel distance in it depends on."""
    return feature_space(config) | {"kd_subsets": config.evaluation.kd_subsets}


def summarize(config):
    """The settings of the job that computes what metrics need of the training images' features."""
    return {"radii": bool({"precision", "recall"} & set(config.evaluation.metrics))}


def evaluate(config, cell):
    """The settings of a job that measures the images of a cell, or, where it is None, the held-out
    ones. They name the metrics unless these are the two distances alone."""
    named = {"metrics": config.evaluation.metrics}
    return {
        "features": _measured_space(config),
        "cell": {"floor": True} if cell is None else facts(config, cell),
        **(named if set(config.evaluation.metrics) != set(DEFAULTS["metrics"]) else {}),
    }


def facts(config, cell):
    """The description of a cell in its metrics.json."""
    model, sampler = cell.model, config.samplers[cell.sampler]
    tuned = isinstance(model, Tuned)
    start = model.start if tuned else model
    network = _network(config, config.chain_of(start.pretrain) or start.pretrain)
    return {
        "pretrain": start.pretrain,
        "process": network.get("process"),
        "parameterization": network.get("parameterization"),
        "kimg": config.kimg_of(start),
        "schedule": model.schedule if tuned else None,
        "recipe": model.recipe if tuned else None,
        "tune_kimg": model.kimg if tuned else None,
        "seed": model.seed,
        "sampler": cell.sampler,
        "label": sampler.label,
        "nfe": sampler.evaluations,
        **({"replicate": cell.replicate} if cell.replicate else {}),
        **_pretraining(config, cell, start),
    }


def _pretraining(config, cell, start):
    """{"pretraining": its number} where it is not that of the replicate."""
    if start.pretrain in config.init | config.tuned:
        return {}
    chain = config.pretrain.get(start.pretrain)
    number = start.seed - (chain.seed if chain else 0)
    return {} if number == cell.replicate else {"pretraining": number}


def conditions(config, start):
    """What a measured spread holds for: images, network, process and feature space; {} for an
    imported start, whose file alone says them."""
    chain = config.chain_of(start)
    if chain is None:
        return {}
    parts = ("network", "process", "parameterization")
    network = {key: value for key, value in _network(config, chain).items() if key in parts}
    space = feature_space(config) | {"classifier": train_classifier(config)}
    return {"dataset": config.dataset.resolved(), **network, "features": space}


def ends(config, experiment):
    """{schedule: {"map", "gap"}} of an experiment: its map and last gap at the prior's median."""
    models = [cell.model for cell in config.cells(experiment)]
    found = {}
    for model in models:
        block = config.schedules[model.schedule]
        level = gaps.median(config.tune[model.recipe].prior.resolved())
        found[model.schedule] = {"map": block.map, "gap": float(f"{gaps.last(block, level):.6g}")}
    return found


def trace(config):
    """The settings of a job that measures snapshots: with every multistep sampler."""
    names = config.consistency_samplers()
    return {
        "features": feature_space(config),
        "samplers": {config.samplers[name].label: sample(config, name) for name in names},
    }


def find_nearest(config):
    """The settings of the job that compares images with their nearest training images."""
    return {"features": feature_space(config)}


def search_steps(config):
    """The settings of a search of intermediate times; {} without one."""
    if config.search is None:
        return {}
    test, block = config.evaluation, config.search.model_dump(exclude={"models"})
    seeds = {"test_seed": test.seed, "test_images": test.images, "batch": test.batch}
    return {"features": _measured_space(config), **block, **seeds, **_computed(config)}


def plot_maps(config):
    """The settings of the figure of maps: every schedule of the config on the clock s with a gap
    t - r, and all of its options."""
    blocks = config.schedules.items()
    shown = {n: b for n, b in blocks if b.clock == "noise" and not config.has_own_loss(n)}
    schedules = {n: {"map": b.map, "options": b.options()} for n, b in shown.items()}
    used = {"schedule": [block.map for block in shown.values()]}
    return {"schedules": schedules} | _plugins(config, used)
