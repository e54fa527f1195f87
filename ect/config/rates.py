"""Whether the learning rate of a run ever moves a weight. Loads no torch.

Adam moves a weight by about the learning rate, which fp32 loses below 1e-9 times a weight of 0.01.
A run that stays there ends well, and its model is its start.
"""

from ect.config.base import LEAST_RATE
from ect.config.cells import Tuned


def check(config):
    """Raise `ValueError` at the first recipe whose rate stays below `LEAST_RATE` in a run."""
    for key, recipe, first, last in runs(config):
        try:
            require_rate(recipe, first, last)
        except ValueError as error:
            raise ValueError(f"{key}.{error}") from None


def runs(config):
    """(key of the recipe, its block, first and last thousand images) of each run whose model the
    study uses. A first milestone that others go on from may be one step of the warm-up."""
    models = [*(cell.model for cell in config.all_cells()), *config.all_tuned()]
    for model in dict.fromkeys(models):
        start = model.start if isinstance(model, Tuned) else model
        if isinstance(model, Tuned):
            yield f"tune.{model.recipe}", config.tune[model.recipe], 0, model.kimg
        if start.kimg:
            block = config.pretrain[start.pretrain]
            yield f"pretrain.{start.pretrain}", block, block.before(start.kimg), start.kimg


def require_rate(recipe, first, last):
    """Raise `ValueError` unless a step of a run from `first` to `last` thousand images, where the
    rate is that of the images seen before the step, has a learning rate of `LEAST_RATE` or more."""
    options, start, end = recipe.optimizer, 1000 * first, 1000 * last
    if start >= end:
        return
    seen = start + (end - start - 1) // recipe.batch * recipe.batch  # before the last step
    warmup = 1000 * options.warmup_kimg
    rate = options.lr * min(1.0, seen / warmup if warmup else 1.0)
    if rate < LEAST_RATE:
        raise ValueError(
            f"optimizer.warmup_kimg: found {options.warmup_kimg:g} with lr {options.lr:g} and"
            f" batch {recipe.batch}, by which the learning rate of a run from {first} to"
            f" {last} thousand images is at most {rate:g}; allowed: at least {LEAST_RATE:g} in"
            " one of its steps, such as by a smaller batch or warm-up"
        )
