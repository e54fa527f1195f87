"""What a study costs, before it starts: jobs, images, evaluations, hours, disk. Loads no torch.

A job is finished where its file lies; whether a changed setting will run it again, `snakemake -n`
says. Hours come from what earlier jobs recorded in their run.json, on the same network, images and
kind of work; distances, tables and figures are in no hours, and on the disk count models, states,
snapshots and samples alone.
"""

import json
import math
import os
from collections import Counter, defaultdict
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ect.cells import Tuned
from ect.jobs import jobs
from ect.schedule import LIMITS

FLOAT = 4  # bytes
EMPTY = (
    "Empty: some of that work was not measured on that device yet (--rate gives a rate of"
    " training), or a start was not imported yet."
)
MOMENTS = 2  # of Adam, for each parameter


def plan(study, rate=None, count=None):
    """The costs of what is to do and of all, as a mapping of JSON; what is unknown is None.

    `rate` (images/s) is one of training, beside those that were measured; `count` (network, shape)
    gives a network's parameters. An imported start is unknown until its file was imported.
    """
    if rate is not None and not rate > 0:
        raise ValueError(f"--rate is {rate:g}; allowed: > 0 images/s")
    every = jobs(study)
    left = [job for job in every if not _is_there(study, job)]
    facts = {job: _facts(study, job) for job in every if job.model}
    speeds, sizes = measured(), {}
    costs = {
        "pretraining_images": lambda some: sum(j.trained for j in some if j.rule == "pretrain"),
        "tuning_images": lambda some: sum(j.trained for j in some if j.rule == "tune"),
        "images_to_draw": lambda some: sum(j.drawn for j in some),
        "network_evaluations": lambda some: sum(j.evaluations for j in some),
        "disk_bytes": lambda some: _disk(study, some, facts, count, sizes),
    }
    both = {name: {"to_do": cost(left), "in_all": cost(every)} for name, cost in costs.items()}
    counts = [Counter(job.rule for job in some) for some in (left, every)]
    rules = {rule: {"to_do": counts[0][rule], "in_all": counts[1][rule]} for rule in counts[1]}
    hours = [
        {"device": device, "of": of, "rate": given}
        | {
            "to_do": _hours(left, device, of, given, facts, speeds),
            "in_all": _hours(every, device, of, given, facts, speeds),
        }
        for device, of, given in _rows(facts, speeds, rate)
    ]
    return {"study": study.study, "jobs": rules, **both, "hours": hours}


def _is_there(study, job):
    return any(Path().glob(os.path.normpath(f"{study.root}/{job.path}")))


def _rows(facts, speeds, rate):
    """(device, of what, given rate) of each row of hours: the devices that ran one of the networks,
    and the rate that was given."""
    networks = {network for network, _ in facts.values()}
    devices = sorted({device for device, network, _ in speeds if network in networks})
    rows = [(device, of, None) for device in devices for of in ("training", "drawing")]
    return rows + ([(None, "training", rate)] if rate or not rows else [])


def _hours(some, device, of, rate, facts, speeds):
    """Hours of training (images) or of drawing (evaluations) on a device, or at a given rate; None
    where there is a job without."""
    amounts = {job: job.trained if of == "training" else job.evaluations for job in some}
    amounts = {job: amount for job, amount in amounts.items() if amount}
    rates = [rate or speeds.get((device, *facts[job])) for job in amounts]
    if None in rates:
        return None
    return sum(amount / rate for amount, rate in zip(amounts.values(), rates)) / 3600


def _facts(study, job):
    """(network, work) as `measured` names them; the network of an unread import is None."""
    start = _start(job.model)
    if start.pretrain in study.init:
        network = _described(_file(study, start))
    else:
        network = study.networks[study.pretrain[start.pretrain].network].resolved()
        network = _text(network, study.dataset.shape)
    if job.trained:
        return network, _training(study.training(job.model))
    return network, _drawing(study.evaluation.model_dump())


def _text(network, shape):
    return None if shape is None else json.dumps([network, list(shape)], sort_keys=True)


def _described(path):
    """What a model file says of its network and images; None where there is no such file."""
    if not path.is_file():
        return None
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["about"])
    return _text(about["network"], about["shape"])


def _drawing(settings):
    """The kind of work that drawing is: its precision tells."""
    return f"drawing, {settings.get('precision', 'fp32')}"


def _training(settings):
    """The kind of work that a training is: its map where that decides the cost, or its target; and
    its precision."""
    name = settings["schedule"]["map"]
    kind = name if name == "zero" or name in LIMITS else settings["target"]
    return f"{kind}, {settings['recipe'].get('precision', 'fp32')}"


def measured(folder="results"):
    """{(device, network, work): images, or evaluations, per second} of all jobs in `folder` that
    left a run.json: their sum over the sum of their seconds. Raises `ValueError` on a broken one.
    """
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
    record = json.loads(path.read_text())
    settings, folder = record["settings"], path.parent
    if "last_kimg" in settings:
        key = record["device"], _described(folder / "model.safetensors"), _training(settings)
        images = 1000 * (settings["last_kimg"] - settings["first_kimg"])
        return key, images, record["seconds"] * record.get("processes", 1)
    metrics, key = folder / "metrics.json", _described(folder.parent / "model.safetensors")
    nfe = json.loads(metrics.read_text())["cell"]["nfe"] if metrics.is_file() else 0
    key = record["device"], key, _drawing(settings)
    return key, nfe * settings["images"], record["seconds"]


def _disk(study, some, facts, count, sizes):
    """Bytes of models, training states, snapshots and samples; None where a size is unknown."""
    shape, total = study.dataset.shape, 0
    for job in some:
        if job.rule == "sample":
            size = None if shape is None else job.drawn * math.prod(shape)
        elif job.rule in ("import_model", "pretrain", "tune"):
            size = _size(study, job, facts[job][0], count, sizes)
            size = None if size is None else size * _copies(study, job)
        else:
            continue
        if size is None:
            return None
        total += size
    return total


def _size(study, job, network, count, sizes):
    """Bytes of a job's network: of its imported file, or counted; None where it is unknown."""
    start = _start(job.model)
    if network is None or start.pretrain in study.init:
        return _file(study, start).stat().st_size if network else None
    if network not in sizes:
        sizes[network] = FLOAT * count(*json.loads(network)) if count else None
    return sizes[network]


def _start(model):
    return model.start if isinstance(model, Tuned) else model


def _file(study, model):
    return Path(study.root, model.folder, "model.safetensors")


def _copies(study, job):
    """How many times a job writes its network's size: the moving average; the state, which is
    weights, moving average and moments; the snapshots."""
    if job.rule == "import_model":
        return 1
    state = 2 + (MOMENTS if job.trained else 0)
    return 1 + state + (study.tune[job.model.recipe].snapshots if job.rule == "tune" else 0)


def table(found):
    """The plan as lines of text: what, to do, in all."""
    lines: list[tuple[str, ...]] = [(f"study {found['study']}", "to do", "in all")]
    jobs = found["jobs"].values()
    lines.append(("jobs", *(f"{sum(job[key] for job in jobs):,}" for key in ("to_do", "in_all"))))
    lines += [_line(f"  {rule}", both, "{:,}") for rule, both in found["jobs"].items()]
    for name in ("pretraining_images", "tuning_images", "images_to_draw", "network_evaluations"):
        lines.append(_line(name.replace("_", " "), found[name], "{:,}"))
    for hours in found["hours"]:
        lines.append(_line(_name_of(hours), hours, "{:,.2f}"))
    disk = {key: size and size / 1e9 for key, size in found["disk_bytes"].items()}
    lines.append(_line("disk, GB", disk, "{:,.2f}"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in lines]
    return "\n".join(rows + [EMPTY] * any("" in line for line in lines))


def _name_of(hours):
    if hours["device"]:
        unit = "core-hours" if hours["device"].startswith("cpu") else "GPU-hours"
        return f"{unit} of {hours['of']}, {hours['device']}"
    given = f", at {hours['rate']:g} images/s" if hours["rate"] else ""
    return f"hours of {hours['of']}{given}"


def _line(name, both, form):
    """A row of the table; empty where a number is unknown."""
    return name, *("" if both[k] is None else form.format(both[k]) for k in ("to_do", "in_all"))
