"""What `figures.nearest` compares: its sampler, and images that are stored. Loads no torch."""

from ect.config.checks import check_boundary, known


def check(config):
    """Raise `ValueError` unless the images that are compared are drawn and kept."""
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
