"""The figures by name: what `python -m ect draw NAME` calls."""

import inspect
from collections.abc import Callable

from ect.report.curves import draw_curves
from ect.report.grid import draw_grid
from ect.report.losspage import draw_losspage
from ect.report.maps import draw_maps
from ect.report.quality import draw_nfe, draw_schedules, draw_solvers, draw_split

FIGURES: dict[str, Callable] = {
    "methods": draw_nfe,
    "split": draw_split,
    "schedules": draw_schedules,
    "solvers": draw_solvers,
    "maps": draw_maps,
    "curves": draw_curves,
    "samples": draw_grid,
    "loss": draw_losspage,
}


def draw(figure, settings, out):
    """Write out.pdf and out.png; `settings` are the keyword arguments of the figure's function."""
    if figure not in FIGURES:
        raise ValueError(f"figure is '{figure}'; allowed: {', '.join(FIGURES)}")
    try:
        inspect.signature(FIGURES[figure]).bind(**settings, out=out)
    except TypeError as error:
        raise ValueError(f"settings of figure '{figure}': {error}") from None
    FIGURES[figure](**settings, out=out)
