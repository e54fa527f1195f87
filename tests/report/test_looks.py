"""What a figure shows: its panels, lines and ticks, read from the drawing before it is saved."""

import numpy as np
import pytest

from ect.report import figures, maps, quality, style
from tests.helpers.reports import SAMPLERS, Inputs


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A function that plots a figure and returns its axes that show something, by their titles."""
    drawings = []
    monkeypatch.setattr(style, "save", lambda drawing, out: drawings.append(drawing))

    def plot(figure, **settings):
        figures.plot(figure, {"width_in": 5.0, **settings}, tmp_path / "f")
        axes = drawings[-1].axes
        return {axis.get_title(loc) or None: axis for axis in axes for loc in ("left", "center")}

    return plot


def test_maps_show_the_gap_to_r(drawn):
    """The lines are 1 - r / s; a schedule with r = s has none, in words."""
    named = {"constant": {"stages": 3}, "zero": {}, "continuous": {}}
    schedules = {name: {"map": name, "options": options} for name, options in named.items()}
    axes = drawn("maps", schedules=schedules)
    gaps = [line.get_ydata() for line in axes["constant"].lines]
    for gap, exact in zip(gaps, (1 / 2, 1 / 4, 1 / 8)):
        np.testing.assert_allclose(gap, exact)
    assert (axes["zero"].lines[0].get_ydata() == 1).all()
    assert [text.get_text() for text in axes["continuous"].texts] == ["r = s: no gap"]
    assert not axes["zero"].texts


def test_curves_have_a_panel_for_each_schedule(drawn, tmp_path):
    """No look stands twice in a panel, and the panels of tuning share their range."""
    inputs = Inputs(tmp_path)
    runs = {f"sigmoid, ect, ve {kimg} + 60": [inputs.log()] for kimg in range(7)}
    runs |= {"constant, ect": [inputs.log()], "pretrain ve": [inputs.log()]}
    axes = drawn("curves", runs=runs)
    assert [title for title in axes if title] == ["pretraining", "sigmoid", "constant"]
    assert [len(axes[title].lines) for title in ("pretraining", "sigmoid", "constant")] == [1, 7, 1]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes["sigmoid"].lines}
    assert len(looks) == 7
    assert axes["sigmoid"].get_ylim() == axes["constant"].get_ylim()


def test_errors_of_the_loss_page_are_ratios_to_the_start(drawn, tmp_path):
    inputs = Inputs(tmp_path)
    rows = ["images,quantity,s,ratio,sampler,value"]
    for images, factor in ((0, 1), (4000, 2), (8000, 5)):
        rows.append(f"{images},fd,,,1 step,3")
        for s in (0.1, 0.3, 1.0):
            rows.append(f"{images},end_to_end,{s},,,{s * factor}")
            rows += [f"{images},residual,{s},{ratio},,{ratio * factor}" for ratio in (0.5, 0.9)]
    axes = drawn("loss", metrics=inputs.log(), trace=inputs.file("\n".join(rows) + "\n"))
    panels = {title[0]: axis for title, axis in axes.items() if title}
    for letter, count in (("c", 4), ("d", 3)):  # c: every second s with both ratios
        lines = [line for line in panels[letter].lines if len(line.get_xdata())]
        lines = [line for line in lines if line.get_marker() != "None"]
        assert len(lines) == count
        for line in lines:
            np.testing.assert_allclose(line.get_ydata(), [1, 2, 5])


def test_evaluations_of_methods_are_evenly_spaced(drawn, tmp_path):
    """Models stand less than half a tick beside theirs, so each belongs to one."""
    inputs = Inputs(tmp_path)
    axis = drawn("methods", metrics=inputs.solvers())[None]
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == ["1", "2", "9", "35"] and list(axis.get_xticks()) == [0, 1, 2, 3]
    found = {}
    for bars in axis.containers:
        for x, fd in zip(*bars[0].get_data()):
            assert abs(x - round(x)) < 0.5
            found.setdefault(labels[round(x)], set()).add(float(fd))
    assert found == {"1": {20.5}, "2": {11.5}, "9": {15.0, 9.0}, "35": {2.8}}


def test_no_error_bar_is_promised_where_there_is_one_seed(drawn, tmp_path):
    inputs = Inputs(tmp_path)
    axis = drawn("split", metrics=inputs.split())[None]
    assert [bars.has_yerr for bars in axis.containers] == [False]
    assert [bars[0].get_linestyle() for bars in axis.containers] == ["None"]


def test_stages_of_the_maps():
    assert len(maps.stages("zero", {})) == 1
    assert len(maps.stages("sigmoid", {"stages": 8})) == 8
    assert len(maps.stages("smooth", {})) == 8
    middles = [progress for progress, _ in maps.stages("constant", {"stages": 4})]
    assert middles == pytest.approx([0.125, 0.375, 0.625, 0.875])
    (first, before), *_ = maps.stages("piecewise", {"start": 0.5, "stages": 5})
    assert not before.any() and first > 0.25  # r stays 0 for a stage after `start`


def test_series_differ_when_printed_in_grey():
    looks = [style.series(index) for index in range(21)]
    assert len({str(look) for look in looks}) == 21
    assert len({str((look["marker"], look["linestyle"])) for look in looks[:7]}) == 7


def test_marks_of_any_number_of_samplers_stay_in_their_row(tmp_path, monkeypatch):
    heights = []
    monkeypatch.setattr(quality, "draw_dots", lambda *given: heights.append(given[2]["height"]))
    inputs = Inputs(tmp_path)
    paths = [
        inputs.cell(sampler, 20.0, schedule=schedule, tune=96)
        for schedule in ("sigmoid", "constant")
        for sampler in SAMPLERS
    ]
    quality.plot_schedules(paths, tmp_path / "f", 6)
    found = np.concatenate(heights)
    assert len(set(found)) == 2 * len(SAMPLERS)
    for row in (0, 1):
        assert (np.abs(found - row) < 0.5).sum() == len(SAMPLERS)


@pytest.mark.parametrize(
    "kind, axis, settings",
    [
        ("schedules", 0, {}),
        ("methods", 1, {}),
        ("solvers", 1, {"solvers": dict.fromkeys(SAMPLERS, "multistep")}),
    ],
)
def test_a_real_distance_far_below_all_others_is_written_and_not_drawn(
    drawn, tmp_path, kind, axis, settings
):
    """Models at 15 to 30: 1.5 is a tenth of the least, and drawn; 1.4 would squeeze the axis."""
    inputs = Inputs(tmp_path)
    paths = [
        inputs.cell("one_step", fd, schedule="sigmoid", tune=96, seed=seed)
        for seed, fd in enumerate((15.0, 20.0, 30.0))
    ]

    def shown(fd):
        floor = inputs.metrics(fd, {"floor": True}, images=360)
        panel = next(iter(drawn(kind, metrics=paths, floor=floor, **settings).values()))
        figure = panel.figure
        texts = [*panel.texts, *(text for one in figure.legends for text in one.get_texts())]
        words = [text.get_text() for text in texts if "real test images" in text.get_text()]
        low, _ = (panel.get_xlim, panel.get_ylim)[axis]()
        return words, low

    words, low = shown(1.5)
    assert words == ["360 real test images"] and low < 1.5
    words, low = shown(1.4)
    assert words == ["360 real test images: 1.4, off the axis"] and low > 5
