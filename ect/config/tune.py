"""The block of a config that says how a network is tuned, and what a loss needs of it. Loads no
torch.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ect import registry
from ect.config.base import Block, Level, Name, Share, names, whole
from ect.config.training import Joint, Recipe
from ect.schedule import CONTINUOUS_TIME, DIFFERENTIATED, GRIDS, SNAPS, TWO_TIMES

OF_FLOW = ("meanflow", "imf", "alphaflow", "shortcut")  # whose u is the network's output
ONE_PRIOR_MORE = tuple(name for name in TWO_TIMES if name != "shortcut")  # which has a grid

DerivativeStep = Annotated[float, Field(ge=1e-4, le=0.1)]


class Truncate(Block):
    """The second of two stages of tuning (TCM), on noise levels s >= `at`; the start, frozen, gives
    the targets below. The prior begins at `at`."""

    at: Level = 1.0
    """The noise level where the stage begins."""
    boundary: Annotated[float, Field(ge=0.01, le=0.99)] = 0.25
    """Share of each batch whose s is `at`."""
    scale: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Weight of the mean loss of these images beside that of the others."""


class Tune(Recipe):
    """A recipe of consistency tuning."""

    target: Literal[registry.TARGETS] = "own"
    """`own`: the target is the network's own, at x_r with the noise of x_t (ECT); `ema`: there, of
    a moving average of the weights (CT), with a map that has a grid; `euler`, `heun`: its own,
    where one step of the frozen start leads (ECD)."""
    mu0: Share | None = None
    """Of the target `ema`: after each step it keeps mu0^(s0 / N) of itself, with N points of the
    grid and the map's `s0`. CT has 0.9 for CIFAR-10, 0.95 for ImageNet; 0 is `own`."""
    shared_dropout: bool = True
    """Both sides of the loss share a dropout mask; if false, the target has another one."""
    joint: Joint | None = None
    """Of objectives with two times: their distribution; without the key `sorted`."""
    snapshots: whole(1000, 0) = 0
    """Number of snapshots of the weights kept during the run, for the loss page."""
    truncate: Truncate | None = None
    """A second stage, from a start of `tuned`, on high noise levels alone (TCM)."""
    trajectories: Name | None = None
    """Mid-training (CMT), with the map `zero`: points of these trajectories and their ends, in
    place of images with noise. Noise levels are theirs, so the recipe is `like` another one and
    has no prior in its own block."""
    adaptive: bool = False
    """Of `continuous` and a network with `uncertainty`: also learn u(s), by which sCM weighs its
    loss: loss / exp(u) + u."""
    derivative: Literal[registry.DERIVATIVES] = "jvp"
    """Of the losses that differentiate the network: `jvp`, forward mode, in one evaluation; or
    `difference`, a central difference of two, for any kernel."""
    derivative_step: DerivativeStep = 0.005
    """The step of `difference`: of `continuous` in asinh(s / sd), of the others in t."""

    @model_validator(mode="after")
    def _joint_fits(self):
        if self.joint and self.joint.kind == "lower" and self.prior.kind != "lognormal":
            raise ValueError(
                f"joint is 'lower' with the prior '{self.prior.kind}'; allowed: a prior lognormal"
            )
        return self

    @model_validator(mode="after")
    def _prior_is_truncated(self):
        if self.truncate is not None:
            require_stage(self.truncate, self.prior.low, self.batch)
        if self.truncate is not None and self.target != "own":
            raise ValueError(f"target is '{self.target}' with truncate; allowed: own")
        return self

    @model_validator(mode="after")
    def _target_is_averaged(self):
        require_decay(self, self.target)
        return self

    @model_validator(mode="after")
    def _masks_differ(self):
        if not self.shared_dropout and not self.dropout:
            raise ValueError("shared_dropout is false with dropout 0; allowed: dropout > 0")
        return self

    @model_validator(mode="after")
    def _step_is_used(self):
        if self.derivative != "difference" and "derivative_step" in self.model_fields_set:
            found = f"derivative_step is {self.derivative_step} with derivative '{self.derivative}'"
            raise ValueError(f"{found}; allowed: difference")
        require_exact(self)
        return self


def require_decay(recipe, target):
    """Raise `ValueError` unless a recipe has `mu0` with the target `ema`, and with no other."""
    if (target == "ema") != (recipe.mu0 is not None):
        allowed = "with the target ema" if recipe.mu0 is not None else "with it, such as mu0: 0.9"
        raise ValueError(f"mu0 is {recipe.mu0} with target '{target}'; allowed: {allowed}")


def require_exact(recipe):
    """Raise `ValueError` for a difference in a precision whose rounding it would magnify."""
    if recipe.derivative == "difference" and recipe.precision not in ("fp32", "tf32"):
        found = f"derivative is 'difference' with precision {recipe.precision}"
        raise ValueError(f"{found}; allowed: fp32, tf32, since it divides rounding by the step")


def require_stage(truncate, low, batch):
    """Raise `ValueError` unless the prior of a second stage begins at its boundary, and a batch has
    images at it and beyond."""
    if low != truncate.at:
        found = f"prior.low is {low} with truncate"
        raise ValueError(f"{found}; allowed: a prior from low = truncate.at on")
    if not 0 < round(truncate.boundary * batch) < batch:
        number = "no" if truncate.boundary * batch < 1 else "every"
        raise ValueError(
            f"truncate.boundary is {truncate.boundary:g}, by which {number} image of a batch of"
            f" {batch} is at the boundary; allowed: a share of one image at least, not all"
        )


def steps_of(kimg, batch):
    """The steps of a run, whose last batch may be smaller."""
    return -(-1000 * kimg // batch)


def require_steps(run):
    """Raise `ValueError` where a run keeps more snapshots than it has steps."""
    steps = steps_of(run.last_kimg - run.first_kimg, run.recipe.batch)
    if run.snapshots > steps > 0:
        found = f"found {run.snapshots} with {steps} steps"
        raise ValueError(f"snapshots: {found}; allowed: at most {steps}")


def misfit(name, own, recipe, target):
    """What of a recipe does not fit the map `name`, and what is allowed; None if all fits. `own` is
    whether that names a loss in place of a map."""
    second = not own and name not in (*SNAPS, "zero")
    kind, solved = recipe.distance.kind, recipe.trajectories is not None
    fit, targets = target == "own" or not (own or solved), "target own"
    if target == "ema":
        fit, targets = name in GRIDS, f"a map with a grid, {names(GRIDS)}"
    fits = {
        "trajectories": (name == "zero" or not solved, "the map zero"),
        "augment": (not solved or recipe.augment is None, "no augment, with trajectories"),
        "a joint prior": (recipe.joint is None or name in ONE_PRIOR_MORE, names(ONE_PRIOR_MORE)),
        f"derivative '{recipe.derivative}'": (
            recipe.derivative == "jvp" or name in DIFFERENTIATED, names(DIFFERENTIATED),
        ),
        "adaptive": (not recipe.adaptive or name == "continuous", "continuous"),
        "truncate": (recipe.truncate is None or second, "a map without a grid, with r > 0"),
        f"distance '{kind}'": (not own or kind == "squared", "distance squared"),
        f"weight '{recipe.weight}'": (not own or recipe.weight != "gap", "any weight but gap"),
        f"target '{target}'": (fit, targets),
    }  # fmt: skip
    return next(((found, allowed) for found, (fit, allowed) in fits.items() if not fit), None)


def require_loss(name, own, recipe, target):
    """Raise `ValueError` unless a recipe by hand is one of the loss of map `name`."""
    if wrong := misfit(name, own, recipe, target):
        raise ValueError(f"recipe: found {wrong[0]} with the map '{name}'; allowed: {wrong[1]}")


def check_loss(config, key, start, schedule, recipe):
    """A loss in place of a map needs a recipe without another; one of two times a network that is
    told both."""
    name, block = config.schedules[schedule].map, config.tune[recipe]
    differs = name in DIFFERENTIATED and block.derivative == "difference"
    if block.kernels == "native" and name in CONTINUOUS_TIME and not differs:
        other = "torch, or derivative: difference" if name in DIFFERENTIATED else "torch"
        raise ValueError(f"{key}: {name} with kernels 'native'; allowed: {other}")
    if wrong := misfit(name, config.has_own_loss(schedule), block, block.target):
        raise ValueError(
            f"{key}: schedule '{schedule}' ({name}) with recipe '{recipe}', found {wrong[0]};"
            f" allowed: {wrong[1]}"
        )
    if block.adaptive:
        _check_adaptive(config, key, start, schedule, recipe)
    if block.truncate is not None:
        _check_second(config, key, start, recipe)
    if not config.has_own_loss(schedule):
        return
    if not block.shared_dropout:
        raise ValueError(
            f"{key}: schedule '{schedule}' ({name}) with recipe '{recipe}', whose shared_dropout is"
            " false; allowed: true, since all evaluations of such a loss share a mask"
        )
    if block.joint is not None and config.schedules[schedule].options()["pairs"] == 0:
        raise ValueError(
            f"{key}: recipe '{recipe}' has a joint prior, for schedule '{schedule}', whose pairs"
            " is 0, so that no r is drawn; allowed: pairs > 0"
        )
    if name in TWO_TIMES:
        _check_told(config, key, start, schedule)


def _check_told(config, key, start, schedule):
    """A loss of two times needs a network that is told both, and some the mean velocity as its
    output."""
    name = config.schedules[schedule].map
    chain = config.pretrain.get(config.chain_of(start))
    told = chain and config.networks[chain.network].span
    of_flow = chain and (chain.process, chain.parameterization) == ("flow", "velocity")
    if not told or (name in OF_FLOW and not of_flow):
        form = "process flow, parameterization velocity and " if name in OF_FLOW else ""
        raise ValueError(
            f"{key}: schedule '{schedule}' ({name}) with start '{start}'; allowed: a pretrain block"
            f" with {form}a network with span: true or end"
        )


def _check_second(config, key, start, recipe):
    """A second stage has a start that is a consistency model: of an import only its user knows."""
    if start not in config.tuned and start not in config.init:
        raise ValueError(
            f"{key}: start '{start}' with recipe '{recipe}', whose truncate needs a tuned start;"
            f" allowed: {names([*config.tuned, *config.init]) or 'a name in tuned, of which none'}"
        )


def _check_adaptive(config, key, start, schedule, recipe):
    """A learned weight is by the network's u(s): what an import has, only its job knows."""
    network = config.networks.get(config.block_of(start).network)
    if network is not None and not network.uncertainty:
        raise ValueError(
            f"{key}: recipe '{recipe}' is adaptive, with schedule '{schedule}' and start '{start}';"
            " allowed: a network with uncertainty: true"
        )
