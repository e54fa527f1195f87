"""Every job of a study, and what it trains and draws. Loads no torch.

The Snakefile makes these jobs of the same config; a test holds the two equal, rule by rule.
"""

from collections import Counter
from typing import NamedTuple

from ect.cells import Milestone, Sampled, Tuned
from ect.config import FETCHED


class Job(NamedTuple):
    """One job: its rule, the file that says it is finished, and what it costs."""

    rule: str
    path: str
    model: Milestone | Tuned | None = None  # the one that it trains or asks
    trained: int = 0  # images
    drawn: int = 0  # images
    evaluations: int = 0  # of the network, to draw them


def jobs(study):
    """Every job of a study but `all`, as the Snakefile makes them."""
    milestones, tuned = models(study)
    every = [Job("prepare_data", "data/dataset.*"), Job("measure_floor", "data/floor.json")]
    every.append(Job("extract_reference", "features/reference.safetensors"))
    if study.features.extractor == "classifier":
        every.append(Job("train_classifier", "features/classifier.safetensors"))
    if FETCHED in study.network_files():
        every.append(Job("fetch_inception", f"../../{FETCHED}"))
    every += [_training(study, model) for model in (*milestones, *tuned)]
    every += _images(study)
    every += [Job("evaluate", f"{cell.folder}/metrics.json") for cell in study.all_cells()]
    every.append(_trace(study))
    every += [_search(study, model) for model in dict.fromkeys(study.searched())]
    return every + [Job(rule, path) for rule, path in _reports(study)]


def models(study):
    """(milestones with all on the way to them, tunings), each once."""
    cells = [*study.all_cells(), *grid(study)]
    asked = [cell.model for cell in cells] + [study.shown("loss"), *study.searched()]
    tuned = [model for model in dict.fromkeys(asked) if isinstance(model, Tuned)]
    starts = [m for m in asked if isinstance(m, Milestone)] + [m.start for m in tuned]
    last = {}
    for start in starts:
        last[start.pretrain] = max(start, last.get(start.pretrain, start), key=lambda m: m.kimg)
    milestones = []
    for name, end in last.items():
        every = 1 if name in study.init else study.pretrain[name].every
        milestones += [Milestone(name, end.seed, k) for k in range(0, end.kimg + 1, every)]
    return milestones, tuned


def grid(study):
    """What the grid of samples shows: the solver and one step before tuning, every step after."""
    after, names = study.shown("samples"), study.consistency_samplers()
    before = [study.figures.solver, *names[:1]]
    return [Sampled(after.start, name) for name in before] + [Sampled(after, n) for n in names]


def _training(study, model):
    path = f"{model.folder}/model.safetensors"
    if isinstance(model, Milestone) and model.pretrain in study.init:
        return Job("import_model", path, model)
    settings = study.training(model)
    images = 1000 * (settings["last_kimg"] - settings["first_kimg"])
    return Job("tune" if isinstance(model, Tuned) else "pretrain", path, model, images)


def _images(study):
    """The jobs that draw the images of every cell and repeat, and what `evaluation.export` makes of
    them: samples.npz (else that of the grid alone), features, PNG files."""
    export, count = study.evaluation.export, study.evaluation.images
    repeats = ["", *(f"/repeat-{index}" for index in range(1, study.evaluation.repeats))]
    sets = [(cell, f"{cell.folder}{repeat}") for cell in study.all_cells() for repeat in repeats]
    shown = [(cell, cell.folder) for cell in grid(study)]
    kept = "npz" in export
    for cell, folder in dict.fromkeys([*sets, *shown] if kept else shown):
        images = count if kept else min(count, study.figures.grid_columns)
        yield _drawing(study, "sample", cell, f"{folder}/samples.npz", images)
    for cell, folder in sets:
        if "features" in export:
            file = f"{folder}/features.safetensors"
            yield _drawing(study, "extract", cell, file, 0 if kept else count)
        if "png" in export:
            yield Job("export_images", f"{folder}/png")


def _drawing(study, rule, cell, path, images):
    nfe = study.samplers[cell.sampler].evaluations
    return Job(rule, path, cell.model, 0, images, images * nfe)


def _trace(study):
    """The start and every snapshot of the loss page's tuning, with every multistep sampler."""
    model = study.shown("loss")
    times, images = 1 + study.tune[model.recipe].snapshots, study.evaluation.images
    nfes = [study.samplers[name].evaluations for name in study.consistency_samplers()]
    drawn, evaluations = times * images * len(nfes), times * images * sum(nfes)
    return Job("trace_tuning", f"{model.folder}/trace.csv", model, 0, drawn, evaluations)


def _search(study, model):
    """At most so many images: k steps have k - 1 levels, each one line of `evaluations` points."""
    block, test = study.search, study.evaluation.images
    lines = {k: (k - 1) * block.evaluations * block.images for k in range(2, max(block.steps) + 1)}
    drawn = Counter(lines) + Counter({k: test for k in block.steps})
    evaluations = sum(k * images for k, images in drawn.items())
    return Job("search_steps", f"{model.folder}/steps.json", model, 0, drawn.total(), evaluations)


def _reports(study):
    """(rule, file) of every table and figure."""
    for name in study.experiments:
        yield "tabulate", f"tables/{name}.csv"
        yield "draw_experiment", f"figures/{name}.png"
    if study.searched():
        yield "tabulate_steps", "tables/steps.csv"
    if study.beside_published():
        yield "tabulate_paper", "tables/paper.csv"
    for name in ("maps", "curves", "samples", "loss"):
        yield f"draw_{name}", f"figures/{name}.png"
    yield "write_page", "index.html"
