"""The figures by name: what `python -m ect draw NAME` calls."""

import inspect
from collections.abc import Callable

from ect.report.curves import plot_curves
from ect.report.ends import plot_ends
from ect.report.grid import plot_grid
from ect.report.lengths import plot_lengths
from ect.report.losspage import plot_losspage
from ect.report.maps import plot_maps
from ect.report.nearest import plot_nearest
from ect.report.noise import plot_noise
from ect.report.quality import plot_nfe, plot_schedules, plot_solvers, plot_split
from ect.report.scaling import plot_scaling

FIGURES: dict[str, Callable] = {
    "methods": plot_nfe,
    "split": plot_split,
    "scaling": plot_scaling,
    "schedules": plot_schedules,
    "solvers": plot_solvers,
    "noise": plot_noise,
    "ends": plot_ends,
    "lengths": plot_lengths,
    "maps": plot_maps,
    "curves": plot_curves,
    "samples": plot_grid,
    "loss": plot_losspage,
    "nearest": plot_nearest,
}


def plot(figure, settings, out):
    """Write out.pdf and out.png; `settings` are the keyword arguments of the figure's function."""
    if figure not in FIGURES:
        raise ValueError(f"figure is '{figure}'; allowed: {', '.join(FIGURES)}")
    try:
        inspect.signature(FIGURES[figure]).bind(**settings, out=out)
    except TypeError as error:
        raise ValueError(f"settings of figure '{figure}': {error}") from None
    FIGURES[figure](**settings, out=out)
