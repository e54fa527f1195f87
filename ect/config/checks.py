"""Checks across the blocks of a config. Loads no torch.

Each check raises `ValueError`: the key, what was found, what is allowed.
"""

import unicodedata
from pathlib import Path

from ect.config import kinds, published
from ect.config.base import names, nearest, short
from ect.config.dataset import LABELS, OWN_TEST, counted
from ect.config.tune import check_loss
from ect.networks.widths import HEADS_OF_64, attending, widths
from ect.runtime.text import one_line
from ect.schedule import TWO_TIMES

# Names of other files in figures/, and in tables/.
FIGURES = ("maps", "curves", "samples", "loss")  # beside one for each experiment
ASKED = ("nearest",)  # a figure and a table of a study that asks for them
RESERVED = ("steps", *FIGURES, *ASKED, "paper")
WIDEST = 4096  # channels of a layer that the native kernels compute


def check(config):
    """Check that every name is a block of the study, that every budget is a milestone of its chain,
    and that the parts fit together."""
    for name, block in config.networks.items():
        _check_norms(f"networks.{name}", block)
        _check_heads(f"networks.{name}", block, config.dataset.shape)
    for name, block in config.pretrain.items():
        known(f"pretrain.{name}.network", block.network, config.networks)
        _check_kernels(config, f"pretrain.{name}", block, name)
    for name, block in config.init.items():
        if block.network is not None:
            known(f"init.{name}.network", block.network, config.networks)
        if name in config.pretrain:
            raise ValueError(f"init.{name}: also a name in pretrain; allowed: another name")
    for name, experiment in config.experiments.items():
        if name in RESERVED:
            raise ValueError(f"experiments.{name}: allowed: any name but {names(RESERVED)}")
        for index, rows in enumerate(experiment.rows):
            _check_rows(config, f"experiments.{name}.rows.{index}", rows)
        kinds.check(config, name)
    _check_published(config)
    _check_cuts(config)
    _check_firsts(config)
    _check_labels(config)
    _check_metrics(config)
    _check_classes(config)


def _check_norms(key, network):
    """A group norm has min(32, width // 4) groups, which must divide its width: so it is for every
    multiple of 4 below 128. EDM2 has none."""
    uneven = sorted(width for width in widths(network) if width % min(32, width // 4))
    if uneven and network.architecture != "edm2":
        raise ValueError(
            f"{key}.channels: found {network.channels}, which with multipliers"
            f" {network.multipliers} makes layers {names(map(str, uneven))} wide; allowed: widths"
            " below 128 and multiples of 32, as all are where channels is a multiple of 32"
        )


def _check_heads(key, network, shape):
    """ADM's and EDM2's attention has width // 64 heads, which must divide its width."""
    if network.architecture not in HEADS_OF_64:
        return
    for width in sorted(attending(network, shape and shape[1])):
        heads = width // 64
        if heads and width % heads:
            raise ValueError(
                f"{key}.channels: found {network.channels}, which with multipliers"
                f" {network.multipliers} makes attention {width} wide, with {heads} heads; allowed:"
                " widths that width // 64 divides, as it does where channels is a multiple of 64"
            )


def _check_labels(config):
    """Within an experiment, and in traces, labels tell samplers apart."""
    together = [config.consistency_samplers()]
    together += [[n for rows in e.rows for n in rows.samplers] for e in config.experiments.values()]
    for group in together:
        seen = {}
        for name in group:
            label = config.samplers[name].label
            other = seen.setdefault(unicodedata.normalize("NFC", one_line(label)), name)
            if other != name:
                raise ValueError(
                    f"samplers.{name}.label: found {short(label)}, the label of '{other}' too;"
                    " allowed: another label for each"
                )


def _check_metrics(config):
    found = config.features.extractor
    if "inception_score" in config.evaluation.metrics and found != "inception":
        raise ValueError(
            f"evaluation.metrics: found 'inception_score' with features.extractor '{found}';"
            " allowed: with 'inception' only"
        )


def _check_classes(config):
    """The study's classifier needs classes. Whether an archive has any, only its job knows."""
    data = config.dataset
    if config.features.extractor != "classifier" or data.source != "images" or data.classes:
        return
    if data.folder and Path(data.folder).exists() and not (Path(data.folder) / LABELS).exists():
        raise ValueError(
            f"dataset.classes: found none with features.extractor 'classifier', and no {LABELS} in"
            f" {data.path}; allowed: folders, or the extractor efficientnet"
        )


def known(key, name, allowed):
    """Raise `ValueError` unless `name`, found at `key`, is allowed."""
    if name not in allowed:
        near = nearest(name, allowed)
        defined = names(allowed) or "a name that is defined, of which there is none"
        raise ValueError(f"{key}: found {short(name)}; allowed: {defined}{near}")


def _check_published(config):
    """Rows beside published numbers are comparable with them, and each number has one row."""
    asked = [
        (f"experiments.{name}.rows.{index}.published.{position}", rows, wanted)
        for name, experiment in config.experiments.items()
        for index, rows in enumerate(experiment.rows)
        for position, wanted in enumerate(rows.published)
    ]
    taken = {}
    for key, rows, wanted in asked:
        for number in _numbers_of(config, key, wanted):
            for sampler in rows.samplers:
                if config.samplers[sampler].evaluations != number.nfe:
                    continue
                other = taken.setdefault(number, (key, sampler))
                if other != (key, sampler):
                    raise ValueError(
                        f"{key}: '{number.method}' at {number.nfe} NFE stands beside {sampler}, and"
                        f" beside {other[1]} of {other[0]}; allowed: one"
                    )


def _numbers_of(config, key, wanted):
    """The published numbers that a row names."""
    space, changes = config.features, ("resolution", "channels", "max_images")
    features = f"inception:{space.inception_mode}"
    if space.extractor != "inception":
        features = space.extractor
    source = config.dataset.source
    try:
        real = published.TRAINING.get(source, 0)
        held_out = config.dataset.held_out
        real -= 0 if source in OWN_TEST or held_out is None else counted(held_out, real)
        metric = published.require_comparable(source, features, config.evaluation.images, real)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    for name in changes:
        if getattr(config.dataset, name) is not None:
            raise ValueError(f"{key}: dataset.{name} is set; allowed: the whole images of {source}")
    numbers = published.of(source, metric)
    known(f"{key}.method", wanted.method, dict.fromkeys(n.method for n in numbers))
    budgets = {n.budget_mimg for n in numbers if n.answers(wanted.method)} - {None}
    if wanted.budget_mimg not in budgets and (wanted.budget_mimg or len(budgets) > 1):
        allowed = names(f"{budget:g}" for budget in sorted(budgets)) or "no such key"
        raise ValueError(f"{key}.budget_mimg: found {wanted.budget_mimg}; allowed: {allowed}")
    found = [n for n in numbers if n.answers(wanted.method, wanted.budget_mimg)]
    try:
        published.require_same_images(found, config.dataset.resizing)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    return found


def _check_firsts(config):
    for name, cut in config.tuned.items():
        _check_cut(config, f"tuned.{name}", cut)


def _check_cuts(config):
    """Figures and a search are of models that the study could train, and widths are of figures."""
    block, search = config.figures, config.search
    cuts = {f"figures.{name}": getattr(block, name) for name in ("samples", "loss", *ASKED)}
    cuts |= {f"search.models.{i}": cut for i, cut in enumerate(search.models if search else ())}
    for key, cut in cuts.items():
        if cut is not None:
            _check_cut(config, key, cut)
    for figure in block.widths_in:
        known("figures.widths_in", figure, [*config.experiments, *FIGURES, *ASKED])
    if block.solver is not None:
        known("figures.solver", block.solver, config.samplers)
        if block.samples is not None:
            _check_flow_maps(config, "figures.solver", [block.solver], [])
            check_boundary(config, "figures.solver", block.samples.pretrain, [block.solver])
    if block.loss is not None and config.tune[block.loss.tune].snapshots == 0:
        raise ValueError(
            f"figures.loss.tune: found '{block.loss.tune}', which keeps no snapshots; allowed: a"
            " recipe with snapshots >= 1, or figures.loss: null"
        )


def _check_cut(config, key, cut):
    known(f"{key}.pretrain", cut.pretrain, config.pretrain | config.given)
    known(f"{key}.schedule", cut.schedule, config.schedules)
    _check_teacher(config, f"{key}.tune", cut.tune, cut.pretrain, cut.kimg)
    check_loss(config, key, cut.pretrain, cut.schedule, cut.tune)
    check_milestone(config, f"{key}.kimg", cut.pretrain, cut.kimg)
    check_boundary(config, key, cut.pretrain, config.consistency_samplers())


def _check_rows(config, key, rows):
    for name in rows.pretrain:
        known(f"{key}.pretrain", name, config.pretrain | config.given)
        for kimg, _ in rows.budgets():
            check_milestone(config, f"{key}.{'kimg' if rows.kimg else 'shares'}", name, kimg)
            _check_teacher(config, f"{key}.tune", rows.tune, name, kimg)
    for name in rows.samplers:
        known(f"{key}.samplers", name, config.samplers)
    for name in rows.pretrain:
        check_boundary(config, key, name, rows.samplers)
    for name in rows.schedules:
        known(f"{key}.schedules", name, config.schedules)
    for name in rows.schedules:
        for start in rows.pretrain:
            check_loss(config, key, start, name, rows.tune)
    _check_flow_maps(config, key, rows.samplers, rows.schedules)


def _check_flow_maps(config, key, samplers, schedules):
    """A flow map leads to levels r > 0 only where a loss has trained them."""
    of_two = [name for name in samplers if config.samplers[name].kind == "flow_map"]
    for name in schedules or [None]:
        known = name is not None and config.schedules[name].map
        if of_two and not (known in TWO_TIMES or known in config.plugin_parts.get("objective", {})):
            found = f"schedule '{name}' ({known})" if known else "no schedule"
            raise ValueError(
                f"{key}: sampler '{of_two[0]}' is a flow_map, with {found}; allowed: tuning by"
                f" {names(TWO_TIMES)}, or a plugin's objective"
            )


def check_boundary(config, key, start, samplers):
    """A flow map is of a network that is told two times. A boundary at sigma_min needs the
    parameterization edm; an import's is not known yet."""
    form = config.block_of(start).parameterization
    network = config.networks.get(config.block_of(start).network)
    for name in samplers:
        if config.samplers[name].kind == "flow_map" and not (network and network.span):
            raise ValueError(
                f"{key}: sampler '{name}' is a flow_map, and start '{start}' has no network with"
                " span; allowed: a pretrain block with a network with span: true or end"
            )
        if config.samplers[name].sigma_min and form not in ("edm", None):
            raise ValueError(
                f"{key}: sampler '{name}' has sigma_min, and start '{start}' the parameterization"
                f" '{form}'; allowed: edm"
            )


def _check_teacher(config, key, recipe, start, kimg):
    if recipe is None:
        return
    known(key, recipe, config.tune)
    _check_kernels(config, key, config.tune[recipe], start)
    target = config.tune[recipe].target
    if target not in ("own", "ema") and kimg == 0 and start not in config.given:
        raise ValueError(
            f"{key}: '{recipe}' has the target '{target}', whose teacher is the start; allowed:"
            " starts with pretraining, not one of 0 thousand images"
        )


def _check_kernels(config, key, recipe, start):
    """The native kernels compute some networks only; an import's may not be known yet."""
    network = config.networks.get(config.block_of(start).network)
    if recipe.kernels == "torch" or network is None:
        return
    if network.architecture in HEADS_OF_64 or network.channels % 16:
        found = f"{network.architecture} of {network.channels} channels"
        raise ValueError(
            f"{key}: kernels 'native' with a network {found}; allowed: ddpmpp, ncsnpp; multiples"
            " of 16"
        )
    if max(widths(network)) > WIDEST:
        found = f"layers {max(widths(network))} wide"
        raise ValueError(f"{key}: kernels 'native' with {found}; allowed: at most {WIDEST}")


def check_milestone(config, key, name, kimg):
    """Raise `ValueError` unless a start has a milestone of `kimg` thousand images."""
    if name in config.given:
        if kimg != 0:
            raise ValueError(f"{key}: found {kimg} of '{name}'; allowed: 0, as it is one model")
        return
    chain = config.pretrain[name]
    if kimg > chain.kimg or kimg not in chain.milestones_to(int(kimg)):
        found = f"{float(kimg):g} thousand images of pretraining '{name}'"
        grid = names(map(str, chain.milestones_to(chain.kimg)[:3])) + f", ..., {chain.kimg}"
        raise ValueError(f"{key}: found {found}; allowed: its milestones {grid}")
