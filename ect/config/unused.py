"""Keys that nothing of a study reads. Loads no torch.

Whoever sets one expects another result than the study gives. Each check raises `ValueError`: the
key, what was found, what is allowed.
"""

from ect.config.base import names, short
from ect.config.rates import runs
from ect.config.tune import steps_of

# Keys of `features` that one extractor alone reads.
READ_BY = {"inception_mode": "inception", "inception_path": "inception", "dinov2_path": "dinov2"}


def check(config):
    """Raise `ValueError` at the first key that is set and that no job reads."""
    _check_features(config.features)
    _check_labels(config)
    _check_widths(config)
    _check_snapshots(config)
    _check_batches(config)


def _check_snapshots(config):
    """A run keeps at most one snapshot at each of its steps."""
    for key, block in config.tune.items():
        models = [*(cell.model for cell in config.all_cells()), *config.beside_cells()]
        kimgs = [model.kimg for model in models if getattr(model, "recipe", None) == key]
        steps = min((steps_of(kimg, block.batch) for kimg in kimgs), default=block.snapshots)
        if block.snapshots > steps:
            found = f"found {block.snapshots} with a run of {steps} steps"
            raise ValueError(f"tune.{key}.snapshots: {found}; allowed: at most {steps}")


def _check_batches(config):
    """A batch is that of a step: the last of a run may be smaller, but not all of all runs."""
    longest, blocks = {}, {}
    for key, block, first, last in runs(config):
        longest[key] = max(longest.get(key, 0), 1000 * (last - first))
        blocks[key] = block
    for key, images in longest.items():
        if blocks[key].batch > images:
            found = f"found {blocks[key].batch} with runs of at most {images} images"
            raise ValueError(f"{key}.batch: {found}; allowed: at most {images}")


def _check_features(block):
    for key, extractor in READ_BY.items():
        value = getattr(block, key)
        if value != type(block).model_fields[key].default and block.extractor != extractor:
            raise ValueError(
                f"features.{key}: found {short(value)} with the extractor '{block.extractor}';"
                f" allowed: with '{extractor}' only"
            )


def _check_labels(config):
    """A network that reads labels of augmentation is told some in one pretraining at least. That
    of a bare state dict has them in its file."""
    told = {chain.network for chain in config.pretrain.values() if chain.augment is not None}
    told |= {block.network for block in config.init.values()}
    trained = {chain.network for chain in config.pretrain.values()}
    for name, block in config.networks.items():
        if block.augment_labels and name in trained - told:
            raise ValueError(
                f"networks.{name}.augment_labels: found {block.augment_labels}, which no"
                " pretraining tells it; allowed: no such key, or a pretraining with augment"
            )


def _check_widths(config):
    """A width is of a figure that is drawn."""
    figures = config.figures
    for name in ("samples", "loss", "nearest"):
        if name in figures.widths_in and getattr(figures, name) is None:
            drawn = [*config.experiments, "maps", "curves"]
            drawn += [key for key in ("samples", "loss", "nearest") if getattr(figures, key)]
            raise ValueError(
                f"figures.widths_in: found '{name}', which is not drawn, as figures.{name} is null;"
                f" allowed: {names(drawn)}"
            )


def check_prior(mapping, config):
    """Raise `ValueError` for a prior in the block of a recipe that trains on trajectories, whose
    noise levels are theirs. `mapping` is the config before `like` is resolved: there a prior comes
    from the other recipe."""
    for name, recipe in config.tune.items():
        if recipe.trajectories is not None and "prior" in mapping["tune"][name]:
            raise ValueError(
                f"tune.{name}.prior: found one with trajectories, whose noise levels are theirs;"
                " allowed: no such key in a recipe that is `like` another"
            )
