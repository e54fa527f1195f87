"""The style of every figure: readable in grey print, and the same bytes for the same input.

Series differ in colour, in lightness, in marker and in line style at once.
"""

import io
import os
from contextlib import contextmanager

import numpy as np

from ect.runtime.checkpoint import replacing
from ect.runtime.text import shown

os.environ["MPLBACKEND"] = "agg"  # before matplotlib is loaded: it raises where a notebook's is not

import matplotlib.style
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

SERIES = [
    {"color": "#12355b", "marker": "o", "linestyle": "-"},
    {"color": "#c1442e", "marker": "s", "linestyle": "--"},
    {"color": "#e0a030", "marker": "^", "linestyle": "-."},
    {"color": "#3f9b85", "marker": "D", "linestyle": (0, (1, 1))},
    {"color": "#7a5195", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#8fb4d9", "marker": "P", "linestyle": (0, (7, 2))},
    {"color": "#6b6b6b", "marker": "X", "linestyle": (0, (3, 1))},
]
PROGRESS = LinearSegmentedColormap.from_list(
    "progress", ["#c3d3e6", "#6c8fb8", "#27517f", "#071a2f"]
)
RC = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}


def series(index):
    """Colour, marker and line style of a series; past the last colour, in new combinations."""
    cycle, place = divmod(index, len(SERIES))
    return SERIES[place] | {"linestyle": SERIES[(place + cycle) % len(SERIES)]["linestyle"]}


@contextmanager
def figure(out, width_in, height_in, rows=1, columns=1, **options):
    """Yield (figure, array of axes (rows, columns)); on success write out.pdf and out.png."""
    with matplotlib.style.context(["default", RC]):
        drawing = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = drawing.subplots(rows, columns, squeeze=False, **options)
        yield drawing, np.asarray(axes)
        save(drawing, out)


def save(drawing, out):
    """Write out.pdf and out.png without time stamps. Drawn in memory: matplotlib tells a full disk
    as an error of its own."""
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        drawn = io.BytesIO()
        drawing.savefig(drawn, format=kind, metadata=metadata)
        with replacing(f"{out}.{kind}") as scratch:
            scratch.write_bytes(drawn.getbuffer())


def progress_bar(figure, axes):
    """The key to the shades of `PROGRESS`, beside the axes."""
    bar = figure.colorbar(ScalarMappable(cmap=PROGRESS), ax=axes, aspect=30, pad=0.01)
    bar.set_label("progress of the run")


def label(text):
    """A user's text as a figure shows it: a dollar begins no formula, an underscore hides nothing
    from the legend, control characters but a new line are escapes."""
    lines = "\n".join(shown(line) for line in str(text).split("\n")).replace("$", r"\$")
    return f" {lines}" if lines.startswith("_") else lines


def ticks(axis, values):
    """Ticks at these values and nowhere else, as plain numbers."""
    axis.set_ticks(values, [f"{value:.4g}" for value in values])
    axis.set_ticks([], minor=True)


def log_ticks(axis):
    """Ticks for a logarithmic axis, after its data are plotted: as many as its range needs, written
    as 20, not 2 x 10^1."""
    low, high = axis.get_view_interval()
    if high < 8 * low:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    else:
        subs = (1, 2, 3, 5) if high < 50 * low else (1, 2, 5) if high < 500 * low else (1,)
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(lambda value, _: _plain(value))
    axis.set_minor_formatter(NullFormatter())


def _plain(value):
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    digit, exponent = f"{value:.0e}".split("e")
    return rf"$10^{{{int(exponent)}}}$" if digit == "1" else ""
