"""What the reader of a study should know before its first job, a line for each. Loads no torch."""

from ect.config.cells import Tuned

CARRIED = 0.01  # the share of its start that an average may keep unmentioned


def advice(config) -> list[str]:
    """The lines about a checked config; none if there is nothing to say."""
    return _other_budget(config) + _carried_starts(config) + _without_kernel_distance(config)


def _other_budget(config):
    """A line where the budget is not exactly the one that was asked for."""
    scale = config.scale
    if scale is None or scale.exact(config.budget):
        return []
    return [
        f"budget: {config.budget:g} was asked for, {scale.factor:.3g} is taken: the study's numbers"
        f" of images are multiples of {scale.unit} thousand, here of {scale.scaled}"
    ]


def _without_kernel_distance(config):
    """A line where a number of subsets is set for a distance that is not measured."""
    block = config.evaluation
    searched = config.search is not None and config.search.metric == "kd"
    if searched or "kd" in block.metrics or "kd_subsets" not in block.model_fields_set:
        return []
    return [f"evaluation.kd_subsets: {block.kd_subsets} has no effect, as metrics has no kd"]


def _carried_starts(config):
    """A line for all recipes with one half-life whose average keeps more than `CARRIED` of its
    start in their shortest run."""
    recipes, shortest = {}, {}
    for model in {cell.model for cell in config.all_cells()}:
        name, recipe = _recipe(config, model)
        if recipe and model.kimg:
            recipes[name] = recipe
            shortest[name] = min(model.kimg, shortest.get(name, model.kimg))
    alike: dict[tuple, list[str]] = {}
    for name in sorted(recipes):
        if (share := recipes[name].carried(shortest[name])) > CARRIED:
            case = recipes[name].ema_halflife_kimg, shortest[name], share
            alike.setdefault(case, []).append(name)
    return [
        f"{', '.join(names)}: ema_halflife_kimg is {halflife:g}, so after {kimg} kimg {share:.0%}"
        " of the average is still the start; ema_std keeps none"
        for (halflife, kimg, share), names in alike.items()
    ]


def _recipe(config, model):
    """The name and block of a model's recipe; the block is None where the model was imported."""
    if isinstance(model, Tuned):
        return f"tune.{model.recipe}", config.tune[model.recipe]
    return f"pretrain.{model.pretrain}", config.pretrain.get(model.pretrain)
