"""What a study costs, before it starts: jobs, images, evaluations, hours, disk. Loads no torch.

A job counts as finished if its file exists and, where Snakemake can be asked, it would not run it
again. Hours come from the run.json of earlier jobs with the same network, images and kind of
work, and do not include distances, tables and figures. Disk space is that of models, training
states, snapshots, trajectories and samples.
"""

import json
import math
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from ect.config import fits
from ect.config.cells import Tuned
from ect.config.missing import missing
from ect.config.released import released
from ect.networks.widths import levels
from ect.runtime.versions import computed, setting
from ect.schedule import CONTINUOUS_TIME, SCHEDULES
from ect.study import settings
from ect.study.jobs import jobs

FLOAT = 4  # bytes
GIVEN = ("import_model", "reconstruct_average", "adopt_tuned")  # rules that write a model alone
TUNING = ("tune", "midtrain")
MOMENTS = 2  # of Adam, for each parameter


def plan(config, rate=None, count=None, shape=None, memory=None, pending=None):
    """The costs of the jobs that are to do and of all jobs, JSON-able; None if unknown.

    `rate` (images/s) is a rate of training besides the measured ones; `count(network, shape)` gives
    a network's number of parameters. That of an imported start is told by its file's name, if it is
    a released one, or unknown until it was imported. With the `shape` (C, H, W) of the images, by
    default the config's, also the disk and the levels of each network. `memory(settings, shape)`
    says what a step holds, of the largest run. `pending()` gives the outputs of all jobs that will
    run, or None; it is asked where a job has its file.
    Raises `ValueError` on a rate that is not > 0.
    """
    if rate is not None and not rate > 0:
        raise ValueError(f"--rate is {rate:g}; allowed: > 0 images/s")
    every = jobs(config)
    left, by_files = _left(config, every, pending)
    shape = shape or config.dataset.shape
    facts = {job: _facts(config, job, shape) for job in every if job.model}
    speeds, sizes = measured(), {}
    costs = {
        "pretraining_images": lambda subset: sum(j.trained for j in subset if j.rule == "pretrain"),
        "tuning_images": lambda subset: sum(j.trained for j in subset if j.rule in TUNING),
        "images_to_draw": lambda subset: sum(j.drawn for j in subset),
        "network_evaluations": lambda subset: sum(j.evaluations for j in subset),
        "disk_bytes": lambda subset: _disk(config, subset, facts, count, sizes, shape),
    }
    both = {name: {"to_do": cost(left), "in_all": cost(every)} for name, cost in costs.items()}
    counts = [Counter(job.rule for job in subset) for subset in (left, every)]
    rules = {rule: {"to_do": counts[0][rule], "in_all": counts[1][rule]} for rule in counts[1]}
    hours = [
        {"device": device, "of": of, "rate": assumed}
        | {
            "to_do": _hours(left, device, of, assumed, facts, speeds),
            "in_all": _hours(every, device, of, assumed, facts, speeds),
        }
        for device, of, assumed in _rows(facts, speeds, rate)
    ]
    networks = _levels(config, shape)
    found: dict[str, Any] = {"missing": [one._asdict() for one in missing(config)], "memory": None}
    found["by_files"] = by_files
    if memory and (run := _largest(config, every, facts, count)):
        found["memory"] = {"run": run.name, **memory(run.settings, run.shape)}
    return {
        "study": config.study, "jobs": rules, **both, "hours": hours, "networks": networks, **found
    }  # fmt: skip


class Step(NamedTuple):
    """A training run, whose settings name the network, and the shape (C, H, W) of its images."""

    name: str
    settings: dict
    shape: list


def _largest(config, every, facts, count):
    """The run whose weights, gradients, moments and averages are the most bytes, as a `Step`; None
    if no network is known. Among equals the one that computes the most images at a time."""
    best, most, counts = None, (0, 0), {}
    for job in (job for job in every if job.trained and facts[job][0] and count):
        network, shape = json.loads(facts[job][0])
        run = settings.train(config, job.model) | {"network": network}
        recipe = run["recipe"]
        images = setting(recipe, "microbatch") or recipe["batch"]
        if facts[job][0] not in counts:
            counts[facts[job][0]] = count(network, shape)
        size = counts[facts[job][0]] * _held(run), images
        if size > most:
            best, most = Step(_name(job.model), run, shape), size
    return best


def _held(run):
    """How many times its weights a step holds: them, gradients, moments, averages, a teacher or an
    averaged target."""
    lengths = setting(run["recipe"], "ema_std")
    averages = len(lengths) if isinstance(lengths, list) else 1
    return 2 + MOMENTS + averages + (run["target"] != "own")


def _name(model):
    """The recipe of a run and, of a tuned model, its start, as the config names them."""
    start = _start(model).pretrain
    return f"tune.{model.recipe} from {start}" if isinstance(model, Tuned) else f"pretrain.{start}"


def _levels(config, shape):
    """{network: its levels, from the finest on} of the networks that the study builds; {} while the
    images' shape is unknown."""
    used = {network.name: network.block for network in fits.networks(config)} if shape else {}
    return {name: [level._asdict() for level in levels(used[name], shape[1])] for name in used}


def _left(config, every, pending):
    """The jobs that are to do, and whether their files alone say so, as nobody else could."""
    lacking = [job for job in every if not any(Path().glob(_file_of(config, job)))]
    outputs = pending() if pending and len(lacking) < len(every) else None
    if outputs is None:
        return lacking, bool(pending) and len(lacking) < len(every)
    folders = {os.path.dirname(path) for path in outputs}

    def runs(file):
        return file in outputs or ("*" in file and os.path.dirname(file) in folders)

    return [job for job in every if runs(_file_of(config, job))], False


def _file_of(config, job):
    """The path of the file that says that a job is finished; it may be a pattern."""
    return os.path.normpath(f"{config.root}/{job.path}")


def _rows(facts, speeds, rate):
    """(device, of what, given rate) of each row of hours: the devices that ran one of the networks,
    and the rate that was given."""
    networks = {network for network, _ in facts.values()}
    devices = sorted({device for device, network, _ in speeds if network in networks})
    rows = [(device, of, None) for device in devices for of in ("training", "drawing")]
    return rows + ([(None, "training", rate)] if rate or not rows else [])


def _hours(subset, device, of, rate, facts, speeds):
    """Hours of training (images) or of drawing (evaluations) on a device, or at a given rate; None
    if a job has no known rate."""
    amounts = {job: job.trained if of == "training" else job.evaluations for job in subset}
    amounts = {job: amount for job, amount in amounts.items() if amount}
    rates = [rate or speeds.get((device, *facts[job])) for job in amounts]
    if None in rates:
        return None
    return sum(amount / rate for amount, rate in zip(amounts.values(), rates)) / 3600


def _facts(config, job, shape):
    """(network, work) as `measured` names them; the network is None before its import."""
    start = _start(job.model)
    chain = config.chain_of(start.pretrain)
    if chain is None:
        network = _described(_file(config, start)) or _released(config, start)
    else:
        network = config.networks[config.pretrain[chain].network].resolved()
        network = _text(network, shape)
    if job.trained:
        return network, _training(settings.train(config, job.model))
    return network, _drawing(config.evaluation.model_dump())


def _text(network, shape):
    return None if shape is None else json.dumps([network, list(shape)], sort_keys=True)


def _described(path):
    """What a model file says of its network and images; None where there is no such file."""
    if not path.is_file():
        return None
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["about"])
    return _text(about["network"], about["shape"])


def _released(config, start):
    """The network of an import that was not made yet, by the name of its file; None if unknown."""
    known = released(config.block_of(start.pretrain).file)
    return known and _text(known.network, known.shape)


def _drawing(settings):
    """The kind of work of sampling: it depends on the precision, and on whether it is compiled."""
    return f"drawing, {computed(settings)}"


def _training(settings):
    """The kind of work of a training run: its map where that decides the cost, as a plugin's may,
    else its target; whether it measures LPIPS, and how its network is computed."""
    name = settings["schedule"]["map"]
    decides = name == "zero" or name in CONTINUOUS_TIME or name not in SCHEDULES
    kind = name if decides else settings["target"]
    kind += ", lpips" if settings["recipe"]["distance"]["kind"] == "lpips" else ""
    return f"{kind}, {computed(settings['recipe'])}"


def measured(folder="results"):
    """{(device, network, work): images, or evaluations, per second} of all jobs in `folder` that
    left a run.json: their sum over the sum of their seconds. Raises `ValueError` on a broken one.
    """
    from safetensors import SafetensorError

    sums = defaultdict(lambda: [0.0, 0.0])
    kinds = ("pretrain", "tune")
    for path in (p for kind in kinds for p in Path(folder).glob(f"*/{kind}/**/run.json")):
        try:
            key, amount, seconds = _spent(path)
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path}: not the record of a job ({error!r})") from None
        if amount and seconds:
            sums[key][0] += amount
            sums[key][1] += seconds
    return {key: amount / seconds for key, (amount, seconds) in sums.items()}


def _spent(path):
    """(key, amount, seconds) of a job that trained or drew something."""
    record = json.loads(path.read_text(encoding="utf-8"))
    settings, folder = record["settings"], path.parent
    if "last_kimg" in settings:
        key = record["device"], _described(folder / "model.safetensors"), _training(settings)
        images = 1000 * (settings["last_kimg"] - settings["first_kimg"])
        return key, images, record["seconds"] * record.get("processes", 1)
    metrics, key = folder / "metrics.json", _described(folder.parent / "model.safetensors")
    nfe = json.loads(metrics.read_text(encoding="utf-8"))["cell"]["nfe"] if metrics.is_file() else 0
    key = record["device"], key, _drawing(settings)
    return key, nfe * settings["images"], record["seconds"]


def _disk(config, subset, facts, count, sizes, shape):
    """Bytes of models, states, snapshots, trajectories and samples; None where a size is
    unknown."""
    total = 0
    for job in subset:
        if job.rule == "sample":
            size = None if shape is None else job.drawn * math.prod(shape)
        elif job.rule == "solve_trajectories":
            points = job.drawn + job.evaluations  # of an end each
            size = None if shape is None else FLOAT * points * math.prod(shape)
        elif job.rule in (*GIVEN, *TUNING, "pretrain"):
            size = _size(config, job, facts[job][0], count, sizes)
            size = None if size is None else size * _copies(config, job)
        else:
            continue
        if size is None:
            return None
        total += size
    return total


def _size(config, job, network, count, sizes):
    """Bytes of a job's network: of its imported file, or by its parameters; None if unknown."""
    start = _start(job.model)
    if config.chain_of(start.pretrain) is None:
        path = _file(config, start)
        if path.is_file():
            return path.stat().st_size if network else None
        known = released(config.block_of(start.pretrain).file)
        return known and FLOAT * known.parameters
    if network is None:
        return None
    if network not in sizes:
        sizes[network] = FLOAT * count(*json.loads(network)) if count else None
    return sizes[network]


def _start(model):
    return model.start if isinstance(model, Tuned) else model


def _file(config, model):
    return Path(config.root, model.folder, "model.safetensors")


def _copies(config, job):
    """How many copies of its network's weights a job writes: the moving average; the state, which
    is weights, moving averages, an averaged target and moments; the snapshots."""
    if job.rule in GIVEN:
        return 1
    tuned = job.rule in TUNING
    recipe = config.tune[job.model.recipe] if tuned else config.pretrain[job.model.pretrain]
    state = 1 + len(recipe.ema_std or [None]) + (MOMENTS if job.trained else 0)
    state += tuned and recipe.target == "ema"
    return 1 + state + (recipe.snapshots if tuned else 0)
