"""What the jobs of a study will need, computed before the first of them. Loads no torch.

`check` is given the `Facts` of the images: those of the config alone, or those that a look at the
source adds (`ect/data/look.py`). What is not known is not checked. Each check raises `ValueError`:
the key, what was found, what is allowed.
"""

from typing import NamedTuple

from ect.config import kinds, seeds
from ect.config.base import names
from ect.config.cells import Milestone
from ect.config.dataset import MISSING, counted
from ect.config.released import released
from ect.config.start import said_by
from ect.networks.widths import levels

# The fewest images of a set for each metric: a covariance needs two, the third nearest neighbour
# of a point three others, the Inception score ten parts.
LEAST = {"fd": 2, "kd": 2, "precision": 4, "recall": 4, "inception_score": 10}
SETS = 20_000  # of images, each with jobs of its own
POOLED = 4  # pixels of a side that the plain classifier pools to one
UNIT_ONLY = ("edm", "diffusers")  # formats of models that read images in the range [-1, 1]
UNIT = {"shift": 127.5, "scale": 1 / 127.5}  # of pixels to that range


class Used(NamedTuple):
    """A network that a job of the study builds: its name, its block, the start that it is of, and
    the samplers that draw from it."""

    name: str
    block: object
    start: str
    samplers: list


def require_bounded(config):
    """Raise `ValueError` for more images than a workflow can plan, before they are listed."""
    count = 0
    for name, experiment in config.experiments.items():
        for index, rows in enumerate(experiment.rows):
            models = len(rows.pretrain) * len(rows.shares or rows.kimg)
            models *= len(rows.schedules) * len(rows.seeds) if rows.tune else 1
            models *= (rows.pretrainings or 1) * (rows.tunings or 1)
            count += models * len(rows.samplers) * config.evaluation.repeats
            if count > SETS:
                raise ValueError(
                    f"experiments.{name}.rows.{index}: found {count} sets of images up to here, a"
                    f" set for each model, sampler and repeat; allowed: at most {SETS}"
                )


def check(config, facts):
    """Raise `ValueError` at the first thing that a job of the study would fail for."""
    train, test = _splits(config.dataset, facts)
    _check_sets(config, train, test)
    seeds.check(config)
    _check_grid(config, train, test)
    _check_classifier(config, facts, train)
    _check_starts(config, facts.shape)
    _check_released(config)
    for used in networks(config):
        if facts.shape is not None:
            _check_sides(used, facts.shape)
            _check_dropout(config, used, facts.shape[1])
        _check_classes(config, used, facts.classes)
        _check_labels(config, used)
    for name in config.experiments:
        kinds.check_figure(config, name)


def networks(config):
    """The `Used` networks whose block the config has: of pretraining, and of a bare state dict."""
    found = {}
    for start, samplers in _drawn(config).items():
        block = config.block_of(start)
        if block.network is not None:
            found[start] = Used(block.network, config.networks[block.network], start, samplers)
    return list(found.values())


def _drawn(config):
    """{start: its samplers} of all images that the study draws: of its cells, its two figures and
    its search."""
    multistep, figures = config.consistency_samplers(), config.figures
    pairs = [(_start(cell.model), cell.sampler) for cell in config.all_cells()]
    if figures.samples is not None:
        pairs += [(figures.samples.pretrain, name) for name in (figures.solver, *multistep)]
    if figures.loss is not None:
        pairs += [(figures.loss.pretrain, name) for name in multistep]
    if figures.nearest is not None:
        pairs.append((figures.nearest.pretrain, figures.nearest.sampler))
    found = {model.start.pretrain: [] for model in config.searched()}
    for start, sampler in dict.fromkeys(pairs):
        found.setdefault(start, []).append(sampler)
    return found


def _start(model):
    return (model if isinstance(model, Milestone) else model.start).pretrain


def _splits(dataset, facts):
    """The numbers of images to train and to test with, None where unknown; raises `ValueError`
    unless images are left to train with."""
    known = [n for n in (facts.images, dataset.max_images) if n is not None]
    held_out, pool = dataset.held_out, min(known, default=None)
    if facts.tests:
        test = facts.tests if held_out is None else counted(held_out, facts.tests)
        if test > facts.tests:
            raise ValueError(
                f"dataset.held_out: found {held_out}; allowed: at most {facts.tests}, the test"
                f" images of {dataset.source}"
            )
        return pool, test
    if held_out is None and facts.images is not None:
        raise ValueError(f"dataset.held_out: {MISSING}")
    if pool is None or held_out is None:
        return None, held_out if isinstance(held_out, int) else None
    test = counted(held_out, pool)
    if test >= pool:
        raise ValueError(
            f"dataset.held_out: found {held_out} of {pool} images; allowed: fewer, or a share of"
            " them such as 0.2"
        )
    return pool - test, test


def _check_sets(config, train, test):
    """Each metric has enough images: the held-out ones are measured against those to train with."""
    metric = max(config.evaluation.metrics, key=LEAST.__getitem__)
    least = LEAST[metric]
    if config.dataset.tests and test is not None and test < least:
        found = config.dataset.held_out
        images = f"{found}" if found == test else f"{found}, which is {test} of the images"
        raise ValueError(
            f"dataset.held_out: found {images}, measured with {metric}; allowed: at least {least},"
            " or 0"
        )
    if train is not None and train < least:
        key = "held_out" if config.dataset.max_images is None else "max_images"
        raise ValueError(
            f"dataset.{key}: found {getattr(config.dataset, key)}, which leaves {train} images to"
            f" train with; allowed: at least {least} of them, for {metric}"
        )


def _check_grid(config, train, test):
    """The figure of samples shows the first images of a model, and of those to train with."""
    images = config.evaluation.images
    most = images if train is None else min(train, images)
    if config.figures.nearest and not config.dataset.tests:
        raise ValueError(
            "figures.nearest: set with dataset.held_out 0; allowed: with images held out, beside"
            " which it shows the generated ones"
        )
    if config.figures.samples is not None and config.figures.grid_columns > most:
        what = "evaluation.images" if most == images else "images to train with"
        raise ValueError(
            f"figures.grid_columns: found {config.figures.grid_columns}; allowed: at most {most},"
            f" the {what}"
        )


def _check_classifier(config, facts, train):
    """The study's own classifier has classes, one step at least, and pixels left to pool."""
    if config.features.extractor != "classifier":
        return
    block = config.features.classifier
    if facts.classes is not None and facts.classes < 2:
        raise ValueError(
            f"features.extractor: found 'classifier' for images of {facts.classes} classes;"
            " allowed: with two classes or more (dataset.classes: folders), or efficientnet"
        )
    if train is not None and block.epochs * train < block.batch:
        raise ValueError(
            f"features.classifier.batch: found {block.batch} for {block.epochs} epochs of {train}"
            f" images; allowed: at most {block.epochs * train}, or more epochs"
        )
    if facts.shape is not None and block.network == "plain" and facts.shape[1] < POOLED:
        raise ValueError(
            f"features.classifier.network: found 'plain' for images of {facts.shape[1]} pixels;"
            f" allowed: resnet, or images of at least {POOLED}"
        )


def _check_starts(config, shape):
    """An imported model reads images of the shape and in the range that it was trained on. What
    shape those of diffusers have, and of EDM under a name of their own, only their job knows."""
    for start in _drawn(config):
        block, start = config.block_of(start), config.first_of(start)
        about = {}
        if start in config.init and block.format in UNIT_ONLY:
            known = released(block.file)
            about = UNIT | ({"shape": list(known.shape)} if known else {})
        elif start in config.init and block.format == "ect":
            about = said_by(start, block.file) or {}
        if about:
            _require_range(config, start, about)
        if shape is not None and about.get("shape", list(shape)) != list(shape):
            raise ValueError(
                f"init.{start}.file: '{block.file}' reads images (C, H, W) of {about['shape']},"
                f" the dataset has {list(shape)}; allowed: equal ones"
            )


def _check_released(config):
    """`_check_dropout` of starts in released files, whose names tell their networks."""
    for model in config.all_tuned():
        start = _start(model)
        if start in config.init and (known := released(config.init[start].file)):
            smallest = known.shape[1] >> len(known.network["multipliers"]) - 1
            key, recipe = f"tune.{model.recipe}", config.tune[model.recipe]
            _require_dropout(key, recipe, f"start '{start}'", smallest)


def _require_range(config, start, reads):
    """`standard` depends on the images: of a start that reads them so, only its job knows more."""
    found, unit = config.dataset.normalize, all(reads[key] == UNIT[key] for key in UNIT)
    if unit != (found == "unit"):
        what = "in [-1, 1]" if unit else "of mean 0 and sd 0.5"
        raise ValueError(
            f"dataset.normalize: found '{found}' with the start '{start}', which reads images"
            f" {what}; allowed: {'unit' if unit else 'standard'}"
        )


def _check_sides(used, shape):
    """A network can halve the images once for each multiplier after the first, and attends at sizes
    that one of its levels has."""
    key, block, side = f"networks.{used.name}", used.block, shape[1]
    count = len(block.multipliers)
    if side % 2 ** (count - 1):
        most = (side & -side).bit_length()
        raise ValueError(
            f"{key}.multipliers: found {count} for images of {side} x {side} pixels, halved from"
            f" each to the next; allowed: at most {most}"
        )
    sizes = [level.side for level in levels(block, side)]
    if absent := [size for size in block.attention if size not in sizes]:
        raise ValueError(
            f"{key}.attention: found {names(map(str, absent))} for images of {side} x {side}"
            f" pixels; allowed: the sizes of its levels, {names(map(str, sizes))}"
        )


def _check_dropout(config, used, side):
    """A recipe's `dropout_at` leaves dropout on one level at least of every network it trains."""
    tuned = [m for m in config.all_tuned() if config.block_of(_start(m)).network == used.name]
    recipes = {f"tune.{m.recipe}": config.tune[m.recipe] for m in tuned}
    chain = config.chain_of(used.start)
    if chain is not None:
        recipes[f"pretrain.{chain}"] = config.pretrain[chain]
    smallest = levels(used.block, side)[-1].side
    for key, recipe in recipes.items():
        _require_dropout(key, recipe, f"network '{used.name}'", smallest)


def _require_dropout(key, recipe, network, smallest):
    if recipe.dropout_at is not None and recipe.dropout_at < smallest:
        raise ValueError(
            f"{key}.dropout_at: found {recipe.dropout_at} with the {network}, whose smallest level"
            f" has {smallest} pixels a side; allowed: {smallest} or more"
        )


def _check_classes(config, used, classes):
    """A network is conditioned on the classes that the images have. A bare state dict may know
    more."""
    found, imported = used.block.classes, config.chain_of(used.start) is None
    if classes is None or not found or found == classes or (imported and found > classes > 0):
        return
    allowed = f"{classes}, as the images have, or 0" if classes else "0, as the images have none"
    raise ValueError(f"networks.{used.name}.classes: found {found}; allowed: {allowed}")


def _check_labels(config, used):
    """A sampler's labels are classes of every network that it draws from."""
    classes = used.block.classes
    for name in used.samplers:
        high = max(config.samplers[name].labels or [-1])
        if high >= classes and high >= 0:
            allowed = f"0 to {classes - 1}" if classes else "no such key, as it has no classes"
            raise ValueError(
                f"samplers.{name}.labels: found {high}, drawn from '{used.start}' (network"
                f" '{used.name}'); allowed: {allowed}"
            )
