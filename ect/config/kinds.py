"""What the kind of an experiment asks of its rows. Loads no torch.

Each check raises `ValueError`: the key, what was found, what is allowed.
"""

from ect.config import gaps
from ect.config.base import names
from ect.config.cells import Milestone, Tuned
from ect.schedule import CONTINUOUS_TIME, SCHEDULES


def check(config, name):
    """Check the rows of an experiment, whatever the images."""
    kind = config.experiments[name].kind
    if kind == "solvers":
        _check_solvers(config, name)
    if kind == "noise":
        _check_noise(config, name)
    if kind == "lengths":
        _check_lengths(config, name)


def _check_solvers(config, name):
    """A table of solvers has one column for each NFE: in it a model has one sampler of a kind."""
    seen = {}
    if all(isinstance(cell.model, Tuned) for cell in config.cells(name)):
        raise ValueError(
            f"experiments.{name}.rows: found tuned models alone with kind 'solvers'; allowed: with"
            " a row without tune, whose samplers are the solvers"
        )
    for cell in config.cells(name):
        block = config.samplers[cell.sampler]
        other = seen.setdefault((cell.model, block.kind, block.evaluations), cell.sampler)
        if other != cell.sampler:
            raise ValueError(
                f"experiments.{name}: samplers '{other}' and '{cell.sampler}' are both {block.kind}"
                f" with {block.evaluations} NFE; allowed: one of them"
            )


def _check_noise(config, name):
    """The spread of sampling is that of sets of images, and all seeds are the study's own."""
    if config.evaluation.repeats < 2:
        raise ValueError(
            f"evaluation.repeats: found {config.evaluation.repeats} with experiments.{name} of kind"
            " 'noise'; allowed: 2 sets of images or more"
        )
    for index, rows in enumerate(config.experiments[name].rows):
        for start in rows.pretrain:
            if start in config.given:
                raise ValueError(
                    f"experiments.{name}.rows.{index}.pretrain: found '{start}', which is one"
                    " model; allowed: names in pretrain, of which there are several seeds"
                )


def _check_lengths(config, name):
    """Lengths are compared of averages of one run, before tuning, at one number of images."""
    for index, rows in enumerate(config.experiments[name].rows):
        key = f"experiments.{name}.rows.{index}"
        if rows.tune is not None:
            raise ValueError(f"{key}.tune: found '{rows.tune}' with kind 'lengths'; allowed: none")
        if others := [start for start in rows.pretrain if start not in config.averages]:
            allowed = names(config.averages) or "a name in averages, of which none"
            raise ValueError(f"{key}.pretrain: found '{others[0]}'; allowed: {allowed}")
    used = {start: config.averages[start] for start in _starts(config.experiments[name])}
    if len({(block.pretrain, block.kimg) for block in used.values()}) > 1:
        found = names(f"{start} ({b.pretrain}, {b.kimg})" for start, b in used.items())
        raise ValueError(
            f"experiments.{name}.rows: found averages of several runs, {found}; allowed: of one"
            " pretraining run and one number of images"
        )
    lengths = [block.ema_std for block in used.values()]
    if len(lengths) < 2 or len(set(lengths)) < len(lengths):
        found = names(f"{start} ({block.ema_std:g})" for start, block in used.items())
        raise ValueError(
            f"experiments.{name}.rows: found the lengths {found}; allowed with kind 'lengths': two"
            " or more averages, no two with the same ema_std"
        )


def _starts(experiment):
    return [start for rows in experiment.rows for start in rows.pretrain]


def check_figure(config, name):
    """Most figures are of tuned models, that of a split is of one total, that of ends of maps with
    a last gap."""
    kind = config.experiments[name].kind
    models = [cell.model for cell in config.cells(name)]
    tuned = [model for model in models if isinstance(model, Tuned)]
    if kind not in ("schedules", "split", "scaling", "noise", "ends"):
        return
    if not tuned:
        raise ValueError(
            f"experiments.{name}.kind: found '{kind}' without a tuned model among its rows;"
            " allowed: methods, solvers, or rows with tune"
        )
    totals = sorted({model.start.kimg + model.kimg for model in tuned})
    if kind == "split" and len(totals) > 1:
        raise ValueError(
            f"experiments.{name}: found totals of {names(map(str, totals))} thousand images;"
            " allowed with kind 'split': one total, such as by total_kimg and shares"
        )
    if kind == "split" and len(shares := {model.start.kimg for model in tuned}) < 2:
        raise ValueError(
            f"experiments.{name}: found one share of pretraining, {max(shares)} of {totals[0]}"
            " thousand images; allowed with kind 'split': two shares or more"
        )
    if kind == "scaling":
        _check_scaling(config, name)
    if kind == "ends":
        _check_ends(config, name, models)


def _check_scaling(config, name):
    """What grows is the total: there are two, though `up_to_kimg` may leave one for now."""
    rows = [rows for rows in config.experiments[name].rows if rows.tune is not None]
    totals = {sum(budget) for block in rows for budget in block.budgets()}
    if len(totals) < 2:
        raise ValueError(
            f"experiments.{name}.rows: found one total of {max(totals)} thousand images; allowed"
            " with kind 'scaling': two totals or more"
        )


def _check_ends(config, name, models):
    """The last gap is a number of a schedule: its map has one, and the recipes have one prior."""
    key = f"experiments.{name}"
    if any(isinstance(model, Milestone) for model in models):
        raise ValueError(f"{key}.rows: found models before tuning; allowed: rows with tune")
    for schedule in {model.schedule: None for model in models}:
        block = config.schedules[schedule]
        if block.map not in SCHEDULES or block.map in ("zero", *CONTINUOUS_TIME):
            raise ValueError(
                f"{key}.rows: found the schedule '{schedule}', whose map {block.map} has no known"
                " last gap; allowed: maps of ect/schedule.py with r < t"
            )
        if block.clock != "noise":
            raise ValueError(
                f"{key}.rows: found the schedule '{schedule}' with clock '{block.clock}'; allowed:"
                " noise, on which last gaps are compared"
            )
    medians = {
        model.recipe: gaps.median(config.tune[model.recipe].prior.resolved()) for model in models
    }
    if len(set(medians.values())) > 1:
        raise ValueError(
            f"{key}.rows: found recipes {names(medians)}, whose priors have other medians; allowed:"
            " one, at which last gaps are compared"
        )
    schedules = {model.schedule for model in models}
    if len(schedules) < 2:
        raise ValueError(
            f"{key}.rows: found the schedule '{max(schedules)}' alone; allowed with kind 'ends':"
            " two schedules or more"
        )
