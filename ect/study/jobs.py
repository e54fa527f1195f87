"""Every job of a study, and what it trains and draws. Loads no torch.

The Snakefile makes the same jobs from the config; a test checks that, rule by rule.
"""

from collections import Counter
from typing import NamedTuple

from ect.config.cells import Milestone, Sampled, Tuned
from ect.config.checks import FIGURES
from ect.config.evaluation import FETCHED
from ect.study import settings


class Job(NamedTuple):
    """One job: its rule, the file that says it is finished, and what it costs."""

    rule: str
    path: str
    model: Milestone | Tuned | None = None  # the one that it trains or samples
    trained: int = 0  # images
    drawn: int = 0  # images
    evaluations: int = 0  # of the network, to draw them


def jobs(config):
    """Every job of a study but `all`, as the Snakefile makes them."""
    milestones, tuned = models(config)
    every = [Job("prepare_data", "data/dataset.*")]
    every += [Job("measure_floor", "data/floor.json")] * config.dataset.tests
    every.append(Job("extract_reference", "features/reference.safetensors"))
    every.append(Job("summarize_reference", "features/summary.safetensors"))
    if config.features.extractor == "classifier":
        every.append(Job("train_classifier", "features/classifier.safetensors"))
    if FETCHED in config.network_files():
        every.append(Job("fetch_inception", f"../../{FETCHED}"))
    every += [_training(config, model) for model in (*milestones, *tuned)]
    every += [_solution(config, name, teacher) for name, teacher in config.solved().items()]
    every += _images(config)
    every += [Job("evaluate", f"{cell.folder}/metrics.json") for cell in config.all_cells()]
    every += [Job("find_nearest", f"{c.folder}/nearest.safetensors") for c in compared(config)]
    if (shown := config.shown("loss")) is not None:
        every.append(_trace(config, shown))
        if config.has_pairs(shown):
            every.append(Job("perfect_loss", f"{shown.folder}/perfect.csv"))
    every += [_search(config, model) for model in dict.fromkeys(config.searched())]
    return every + [Job(rule, path) for rule, path in _reports(config)]


def models(config):
    """(milestones, with all before them on their chains; tuned models), each once."""
    cells = [*config.all_cells(), *grid(config), *compared(config)]
    asked = [*(cell.model for cell in cells), *config.beside_cells()]
    starts = [getattr(model, "start", model) for model in asked]
    asked += [config.origin(start.pretrain) for start in starts if start.pretrain in config.tuned]
    tuned = [model for model in dict.fromkeys(asked) if isinstance(model, Tuned)]
    starts = [m for m in asked if isinstance(m, Milestone)] + [m.start for m in tuned]
    starts += config.solved().values()
    starts += [
        config.milestones_of(m.pretrain, m.seed)[-1]
        for m in starts
        if m.pretrain in config.averages
    ]
    last = {}
    for start in starts:
        chain = start.pretrain, start.seed
        last[chain] = max(start, last.get(chain, start), key=lambda m: m.kimg)
    milestones = []
    for (name, seed), end in last.items():
        points = [0] if name in config.given else config.pretrain[name].milestones_to(end.kimg)
        milestones += [Milestone(name, seed, kimg) for kimg in points]
    return milestones, tuned


def grid(config):
    """What the grid of samples shows: the solver and one step before tuning, every step after;
    nothing without the grid."""
    after, names = config.shown("samples"), config.consistency_samplers()
    if after is None:
        return []
    before = [config.figures.solver, *names[:1]]
    return [Sampled(after.start, name) for name in before] + [Sampled(after, n) for n in names]


def drawn(config):
    """The figures of no experiment that the study draws."""
    left_out = [name for name in ("samples", "loss") if config.shown(name) is None]
    return [name for name in FIGURES if name not in left_out]


def compared(config):
    """[the images that are compared with training images], or []."""
    return [config.compared()] if config.compared() else []


def _training(config, model):
    path = f"{model.folder}/model.safetensors"
    if isinstance(model, Milestone) and model.pretrain in config.init:
        return Job("import_model", path, model)
    if isinstance(model, Milestone) and model.pretrain in config.averages:
        return Job("reconstruct_average", path, model)
    if isinstance(model, Milestone) and model.pretrain in config.tuned:
        return Job("adopt_tuned", path, model)
    run = settings.train(config, model)
    images = 1000 * (run["last_kimg"] - run["first_kimg"])
    rule = "pretrain" if isinstance(model, Milestone) else _tuning(config.tune[model.recipe])
    return Job(rule, path, model, trained=images)


def _tuning(recipe):
    return "tune" if recipe.trajectories is None else "midtrain"


def _solution(config, name, teacher):
    """The job that solves trajectories: an evaluation for each of their points."""
    block, path = config.trajectories[name], f"trajectories/{name}/trajectories.safetensors"
    evaluations = block.count * block.steps
    return Job("solve_trajectories", path, teacher, drawn=block.count, evaluations=evaluations)


def _images(config):
    """The jobs that draw the images of every cell and repeat, and what `evaluation.export` makes of
    them: samples.npz (else that of the grid alone), features, PNG files."""
    export, count = config.evaluation.export, config.evaluation.images
    repeats = ["", *(f"/repeat-{index}" for index in range(1, config.evaluation.repeats))]
    sets = [(cell, f"{cell.folder}{repeat}") for cell in config.all_cells() for repeat in repeats]
    shown = [(cell, cell.folder) for cell in (*grid(config), *compared(config))]
    kept = "npz" in export
    for cell, folder in dict.fromkeys([*sets, *shown] if kept else shown):
        images = count if kept else min(count, config.figures.grid_columns)
        yield _drawing(config, "sample", cell, f"{folder}/samples.npz", images)
    for cell, folder in sets:
        if "features" in export:
            file = f"{folder}/features.safetensors"
            yield _drawing(config, "extract", cell, file, 0 if kept else count)
        if "png" in export:
            yield Job("export_images", f"{folder}/png")


def _drawing(config, rule, cell, path, images):
    nfe = config.samplers[cell.sampler].evaluations
    return Job(rule, path, cell.model, drawn=images, evaluations=images * nfe)


def _trace(config, model):
    """The start and every snapshot of the loss page's tuning run, with every multistep sampler."""
    times, images = 1 + config.tune[model.recipe].snapshots, config.evaluation.images
    nfes = [config.samplers[name].evaluations for name in config.consistency_samplers()]
    drawn, evaluations = times * images * len(nfes), times * images * sum(nfes)
    path = f"{model.folder}/trace.csv"
    return Job("trace_tuning", path, model, drawn=drawn, evaluations=evaluations)


def _search(config, model):
    """An upper bound: k steps have k - 1 levels, each a line search of `evaluations` points."""
    block, test = config.search, config.evaluation.images
    lines = {k: (k - 1) * block.evaluations * block.images for k in range(2, max(block.steps) + 1)}
    drawn = Counter(lines) + Counter({k: test for k in block.steps})
    evaluations = sum(k * images for k, images in drawn.items())
    path, images = f"{model.folder}/steps.json", drawn.total()
    return Job("search_steps", path, model, drawn=images, evaluations=evaluations)


def _reports(config):
    """(rule, file) of every table and figure."""
    for name in config.experiments:
        yield "tabulate", f"tables/{name}.csv"
        yield "draw_experiment", f"figures/{name}.png"
    if config.searched():
        yield "tabulate_steps", "tables/steps.csv"
    if config.beside_published():
        yield "tabulate_paper", "tables/paper.csv"
    if compared(config):
        yield "tabulate_nearest", "tables/nearest.csv"
        yield "draw_nearest", "figures/nearest.png"
    for name in drawn(config):
        yield f"draw_{name}", f"figures/{name}.png"
    yield "write_page", "index.html"
