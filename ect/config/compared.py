"""What figures compare: the rows of the grid of samples, and images with training images. Loads no
torch."""

from ect.config.checks import check_boundary, known
from ect.runtime.text import one_line


def check(config):
    """Raise `ValueError` unless the rows of the grid differ, and the images that are compared with
    training images are drawn and kept."""
    _check_grid(config)
    cut = config.figures.nearest
    if cut is None:
        return
    known("figures.nearest.sampler", cut.sampler, config.samplers)
    check_boundary(config, "figures.nearest", cut.pretrain, [cut.sampler])
    if "npz" not in config.evaluation.export:
        raise ValueError(
            f"figures.nearest: found evaluation.export {config.evaluation.export}; allowed: with"
            " npz among it, the images that are compared"
        )


def _check_grid(config):
    """Before tuning the grid shows the solver and one step: two samplers with two labels."""
    first, solver = config.consistency_samplers()[:1], config.figures.solver
    if config.figures.samples is None or not first:
        return
    labels = [one_line(config.samplers[name].label) for name in (solver, *first)]
    if labels[0] == labels[1]:
        raise ValueError(
            f"figures.solver: found '{solver}', labelled as '{first[0]}', which the grid of samples"
            " shows too; allowed: another sampler, with another label"
        )
