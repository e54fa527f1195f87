"""What the blocks of a study must say of one another. Loads no torch.

Each check raises `ValueError`: the key, what was found, what is allowed.
"""

from pathlib import Path

from ect import published
from ect.config import names
from ect.dataset import LABELS, OWN_TEST
from ect.schedule import LIMITS

# Files of their own in tables and figures.
RESERVED = ("steps", "maps", "curves", "samples", "loss", "paper")


def check(study):
    """Every name in the study is a block of it, and every budget a milestone of its chain."""
    for name, block in study.networks.items():
        _check_norms(f"networks.{name}", block)
        _check_heads(f"networks.{name}", block, study.dataset.shape)
    for name, block in study.pretrain.items():
        known(f"pretrain.{name}.network", block.network, study.networks)
        _check_kernels(study, f"pretrain.{name}", block, name)
    for name, block in study.init.items():
        if block.network is not None:
            known(f"init.{name}.network", block.network, study.networks)
        if name in study.pretrain:
            raise ValueError(f"init.{name}: also a name in pretrain; allowed: another name")
    for name, experiment in study.experiments.items():
        if name in RESERVED:
            raise ValueError(f"experiments.{name}: allowed: any name but {names(RESERVED)}")
        for index, rows in enumerate(experiment.rows):
            _check_rows(study, f"experiments.{name}.rows.{index}", rows)
        _check_solvers(study, name)
    _check_published(study)
    for figure in ("samples", "loss"):
        _check_cut(study, f"figures.{figure}", getattr(study.figures, figure))
    _check_search(study)
    _check_metrics(study)
    _check_classes(study)
    known("figures.solver", study.figures.solver, study.samplers)
    if study.tune[study.figures.loss.tune].snapshots == 0:
        raise ValueError(
            f"figures.loss.tune: found '{study.figures.loss.tune}', which keeps no snapshots;"
            " allowed: a recipe with snapshots >= 1"
        )


def _check_norms(key, network):
    """min(32, width // 4) groups of a norm share its width: all multiples of 4 below 128 can."""
    uneven = sorted(width for width in widths(network) if width % min(32, width // 4))
    if uneven:
        raise ValueError(
            f"{key}.channels: found {network.channels}, which with multipliers"
            f" {network.multipliers} makes layers {names(map(str, uneven))} wide; allowed: widths"
            " below 128 and multiples of 32, as all are where channels is a multiple of 32"
        )


def widths(network):
    """How wide the inputs and outputs of the blocks of ect/network.py are; a decoder's input is as
    wide as what it joins, the block before and a skip connection."""
    levels = [network.channels * m for m in network.multipliers]
    skips = [levels[0] if network.architecture == "adm" else network.channels]
    for place, width in enumerate(levels):
        skips += skips[-1:] * (place > 0) + [width] * network.blocks
    found, last = {*skips}, skips[-1]
    for width in reversed(levels):
        for _ in range(network.blocks + 1):
            found.add(last + skips.pop())
            last = width
    return found


def _check_heads(key, network, shape):
    """ADM's attention has width // 64 heads, which share its width."""
    if network.architecture != "adm":
        return
    for width in sorted(attending(network, shape and shape[1])):
        heads = width // 64
        if heads and width % heads:
            raise ValueError(
                f"{key}.channels: found {network.channels}, which with multipliers"
                f" {network.multipliers} makes attention {width} wide, with {heads} heads; allowed:"
                " widths that width // 64 divides, as it does where channels is a multiple of 64"
            )


def attending(network, side):
    """How wide the attention of an ADM is for images of `side` pixels: on the levels that are named
    and in the middle; where the side is not known (None), in the middle alone."""
    levels = [network.channels * m for m in network.multipliers]
    named = (width for n, width in enumerate(levels) if side and side >> n in network.attention)
    return {*named, levels[-1]}


def _check_solvers(study, name):
    """Where a table has one column for each NFE, a model has one sampler of a kind there."""
    seen = {}
    for cell in study.cells(name) if study.experiments[name].kind == "solvers" else []:
        block = study.samplers[cell.sampler]
        other = seen.setdefault((cell.model, block.kind, block.evaluations), cell.sampler)
        if other != cell.sampler:
            raise ValueError(
                f"experiments.{name}: samplers '{other}' and '{cell.sampler}' are both {block.kind}"
                f" with {block.evaluations} NFE; allowed: one of them"
            )


def _check_metrics(study):
    found = study.features.extractor
    if "inception_score" in study.evaluation.metrics and found != "inception":
        raise ValueError(
            f"evaluation.metrics: found 'inception_score' with features.extractor '{found}';"
            " allowed: with 'inception' only"
        )


def _check_classes(study):
    """The study's classifier tells classes apart: of an archive only its job knows whether it has
    any."""
    data = study.dataset
    if study.features.extractor != "classifier" or data.source != "images" or data.classes:
        return
    if data.folder and not (Path(data.folder) / LABELS).exists():
        raise ValueError(
            f"dataset.classes: found none with features.extractor 'classifier', and no {LABELS} in"
            f" {data.path}; allowed: folders, or the extractor inception"
        )


def known(key, name, allowed):
    """`name`, found at `key`, is among the allowed names."""
    if name not in allowed:
        raise ValueError(f"{key}: found '{name}'; allowed: {names(allowed)}")


def _check_published(study):
    """What stands beside published numbers is comparable with them, and stands there once."""
    asked = [
        (f"experiments.{name}.rows.{index}.published.{place}", rows, wanted)
        for name, experiment in study.experiments.items()
        for index, rows in enumerate(experiment.rows)
        for place, wanted in enumerate(rows.published)
    ]
    taken = {}
    for key, rows, wanted in asked:
        for number in _numbers_of(study, key, wanted):
            for sampler in rows.samplers:
                if study.samplers[sampler].evaluations != number.nfe:
                    continue
                other = taken.setdefault(number, (key, sampler))
                if other != (key, sampler):
                    raise ValueError(
                        f"{key}: '{number.method}' at {number.nfe} NFE stands beside {sampler}, and"
                        f" beside {other[1]} of {other[0]}; allowed: one"
                    )


def _numbers_of(study, key, wanted):
    """The published numbers that a row names."""
    space, changes = study.features, ("resolution", "channels", "max_images")
    features = f"inception:{space.inception_mode}"
    if space.extractor != "inception":
        features = space.extractor
    source = study.dataset.source
    try:
        held_out = 0 if source in OWN_TEST else study.dataset.held_out
        real = published.TRAINING.get(source, 0) - held_out
        metric = published.require_comparable(source, features, study.evaluation.images, real)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    for name in changes:
        if getattr(study.dataset, name) is not None:
            raise ValueError(f"{key}: dataset.{name} is set; allowed: the whole images of {source}")
    numbers = published.of(source, metric)
    known(f"{key}.method", wanted.method, dict.fromkeys(n.method for n in numbers))
    budgets = {n.budget_mimg for n in numbers if n.answers(wanted.method)} - {None}
    if wanted.budget_mimg not in budgets and (wanted.budget_mimg or len(budgets) > 1):
        allowed = names(f"{budget:g}" for budget in sorted(budgets)) or "no such key"
        raise ValueError(f"{key}.budget_mimg: found {wanted.budget_mimg}; allowed: {allowed}")
    return [n for n in numbers if n.answers(wanted.method, wanted.budget_mimg)]


def _check_search(study):
    if study.search is None:
        return
    for index, cut in enumerate(study.search.models):
        _check_cut(study, f"search.models.{index}", cut)
    search, test = study.search, study.evaluation
    last = test.seed + test.repeats * test.images - 1
    if search.seed <= last and test.seed < search.seed + search.images:
        raise ValueError(
            f"search.seed: found {search.seed} with {search.images} images, which meets the"
            f" evaluation's seeds {test.seed} to {last}; allowed: seeds apart from them"
        )


def _check_cut(study, key, cut):
    known(f"{key}.pretrain", cut.pretrain, study.pretrain | study.init)
    known(f"{key}.schedule", cut.schedule, study.schedules)
    _check_teacher(study, f"{key}.tune", cut.tune, cut.pretrain, cut.kimg)
    _check_limit(study, key, cut.pretrain, cut.schedule, cut.tune)
    _check_milestone(study, f"{key}.kimg", cut.pretrain, cut.kimg)
    _check_boundary(study, key, cut.pretrain, study.consistency_samplers())


def _check_rows(study, key, rows):
    for name in rows.pretrain:
        known(f"{key}.pretrain", name, study.pretrain | study.init)
        for kimg, _ in rows.budgets():
            _check_milestone(study, f"{key}.{'kimg' if rows.kimg else 'shares'}", name, kimg)
            _check_teacher(study, f"{key}.tune", rows.tune, name, kimg)
    for name in rows.samplers:
        known(f"{key}.samplers", name, study.samplers)
    for name in rows.pretrain:
        _check_boundary(study, key, name, rows.samplers)
    for name in rows.schedules:
        known(f"{key}.schedules", name, study.schedules)
        for start in rows.pretrain:
            _check_limit(study, key, start, name, rows.tune)


def _check_boundary(study, key, start, samplers):
    """A boundary at sigma_min is one of the parameterization edm; an import's is not known yet."""
    form = (study.pretrain.get(start) or study.init[start]).parameterization
    for name in samplers:
        if study.samplers[name].sigma_min and form not in ("edm", None):
            raise ValueError(
                f"{key}: sampler '{name}' has sigma_min, and start '{start}' the parameterization"
                f" '{form}'; allowed: edm"
            )


def _check_teacher(study, key, recipe, start, kimg):
    if recipe is None:
        return
    known(key, recipe, study.tune)
    _check_kernels(study, key, study.tune[recipe], start)
    target = study.tune[recipe].target
    if target != "own" and kimg == 0 and start not in study.init:
        raise ValueError(
            f"{key}: '{recipe}' has the target '{target}', whose teacher is the start; allowed:"
            " starts with pretraining, not one of 0 thousand images"
        )


def _check_kernels(study, key, recipe, start):
    """Which networks ect/native.py knows; an import's may not be known yet."""
    network = study.networks.get((study.pretrain.get(start) or study.init.get(start)).network)
    if recipe.kernels == "torch" or network is None:
        return
    if network.architecture == "adm" or network.channels % 16:
        found = f"{network.architecture} of {network.channels} channels"
        raise ValueError(
            f"{key}: kernels 'native' with a network {found}; allowed: ddpmpp, ncsnpp; multiples"
            " of 16"
        )


def _check_limit(study, key, start, schedule, recipe):
    """The maps that end in r = t have losses of their own, and MeanFlow a network of its own."""
    name, block = study.schedules[schedule].map, study.tune[recipe]
    if name not in LIMITS:
        return
    if block.kernels == "native":
        raise ValueError(
            f"{key}: {name} with kernels 'native'; allowed: torch, for its derivatives"
        )
    found = {"distance": block.distance.kind, "weight": block.weight, "target": block.target}
    allowed = found["distance"] == "squared" and found["weight"] != "gap"
    if not allowed or found["target"] != "own":
        raise ValueError(
            f"{key}: schedule '{schedule}' ({name}) with recipe '{recipe}', found {found}; allowed:"
            " distance squared, any weight but gap, target own"
        )
    chain = study.pretrain.get(start)
    parts = chain and (chain.process, chain.parameterization, study.networks[chain.network].span)
    if name == "meanflow" and parts != ("flow", "velocity", True):
        raise ValueError(
            f"{key}: schedule '{schedule}' (meanflow) with start '{start}'; allowed: a pretrain"
            " block with process flow, parameterization velocity and a network with span: true"
        )


def _check_milestone(study, key, name, kimg):
    if name in study.init:
        if kimg != 0:
            raise ValueError(f"{key}: found {kimg} of '{name}'; allowed: 0, as it is imported")
        return
    chain = study.pretrain[name]
    if kimg % chain.every or not 0 <= kimg <= chain.kimg:
        found = f"{float(kimg):g} thousand images of pretraining '{name}'"
        grid = f"0, {chain.every}, {2 * chain.every}, ..., {chain.kimg}"
        raise ValueError(f"{key}: found {found}; allowed: its milestones {grid}")
