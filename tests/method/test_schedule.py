"""The maps t -> r: bounds, monotony, stages, and the printed numbers of ECT's settings."""

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ect.registry import schedule_options
from ect.schedule import (
    CONTINUOUS_TIME,
    SCHEDULES,
    SNAPS,
    _ct_points,
    _ict_points,
    constant,
    fixed,
    logsnr,
    piecewise,
    power,
    sigmoid,
    smooth,
    zero,
)

GAPS = [name for name in SCHEDULES if name not in CONTINUOUS_TIME]  # the maps with r < t
every_map = pytest.mark.parametrize("name", GAPS)
every_smooth_map = pytest.mark.parametrize("name", [n for n in GAPS if n not in SNAPS])
every_grid = pytest.mark.parametrize("name", list(SNAPS))
OPTIONS = {  # how each option is drawn
    "q": st.floats(1.5, 64),
    "stages": st.integers(1, 6),
    "k": st.floats(0, 20),
    "b": st.floats(0.01, 5),
    "start": st.floats(0, 0.9),
    "cut": st.floats(1.5, 8),
    "s0": st.integers(2, 20),
    "s1": st.integers(40, 1280),
    "low": st.floats(0.001, 0.01),
    "high": st.floats(50, 100),
}
TIMES = torch.logspace(-5, 3, 400, dtype=torch.float64)
PROGRESS = [i / 97 for i in range(97)]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw_bound(data, name):
    """The map `name` with drawn options."""
    names = list(SCHEDULES[name].__annotations__)
    return functools.partial(SCHEDULES[name], **{n: data.draw(OPTIONS[n], n) for n in names})


def n_of(t, k=8.0, b=1.0):
    return 1 + k / (1 + math.exp(b * t))


@every_map
@given(data=st.data(), t=st.floats(1e-5, 1e3), progress=st.floats(0, 1, exclude_max=True))
def test_r_lies_in_zero_to_t(name, data, t, progress):
    r = draw_bound(data, name)(tensor(t), progress)
    assert 0 <= r < t


@every_map
@given(data=st.data(), progress=st.floats(0, 1, exclude_max=True))
def test_r_does_not_fall_with_t(name, data, progress):
    assert (draw_bound(data, name)(TIMES, progress).diff() >= 0).all()


@every_smooth_map
@given(data=st.data(), progress=st.floats(0, 1, exclude_max=True))
def test_its_ratio_does_not_fall_with_t(name, data, progress):
    r = draw_bound(data, name)(TIMES, progress)
    assert ((r / TIMES).diff() >= -1e-14).all()


@every_smooth_map
@given(data=st.data())
def test_r_does_not_fall_as_the_run_progresses(name, data):
    schedule = draw_bound(data, name)
    r = torch.stack([schedule(TIMES[::20], progress) for progress in PROGRESS])
    assert (r.diff(dim=0) >= 0).all()


def test_zero_is_zero():
    assert (zero(TIMES, 0.7) == 0).all()


@every_map
def test_r_keeps_dtype_and_shape(name):
    r = SCHEDULES[name](TIMES.float(), 0.6)
    assert r.dtype == torch.float32 and r.shape == TIMES.shape


def share_of_zero(q, stages, stage, mean, std):
    """Share of r = 0 under the prior, on a grid of its quantiles."""
    p = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    t = (torch.special.ndtri(p) * std + mean).exp()
    r = sigmoid(t, (stage - 0.5) / stages, q=q, stages=stages)
    return (r == 0).double().mean().item()


def exact_share(q, stage, mean, std):
    """P(n(t) >= q^stage): n is decreasing, so P(t <= ln(k / (q^a - 1) - 1))."""
    odds = 8 / (q**stage - 1) - 1
    if odds <= 1:
        return 0.0
    return 0.5 * (1 + math.erf((math.log(math.log(odds)) - mean) / std / math.sqrt(2)))


CIFAR, IMAGENET = (2.0, 8, -1.1, 2.0), (4.0, 4, -0.8, 1.6)


@pytest.mark.parametrize(
    ("setting", "stage", "percent"),
    [
        (CIFAR, 1, 81.1),
        (CIFAR, 2, 58.5),
        (CIFAR, 3, 0),
        (CIFAR, 8, 0),
        (IMAGENET, 1, 53.2),
        (IMAGENET, 2, 0),
        (IMAGENET, 4, 0),
    ],
)
def test_share_of_samples_with_r_zero(setting, stage, percent):
    q, stages, mean, std = setting
    found = share_of_zero(q, stages, stage, mean, std)
    assert found == pytest.approx(exact_share(q, stage, mean, std), abs=2e-6)
    assert round(100 * found, 1) == percent


def test_last_stage_ratios_are_the_printed_ones():
    t = tensor(0.1, 1, 10)
    ratio = sigmoid(t, 0.99) / t
    assert [round(v, 3) for v in ratio.tolist()] == [0.981, 0.988, 0.996]
    wanted = [1 - n_of(v) / 256 for v in t.tolist()]
    assert ratio.tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("stages", [1, 2, 3, 7, 8, 9, 10, 49, 98])
@pytest.mark.parametrize("per_stage", [1, 3, 7, 1000, 12_288])
def test_stages_change_exactly_at_their_boundary(stages, per_stage):
    """Stage a holds the images (a - 1) total / stages <= seen < a total / stages; in floating
    point 1 / 49 * 49 < 1."""
    total = stages * per_stage
    for stage in range(1, stages + 1):
        for seen in ((stage - 1) * per_stage, stage * per_stage - 1):
            r = constant(tensor(1.0), seen / total, q=1.25, stages=stages)
            assert r.item() == 1 - 1.25**-stage, (stage, seen)


@pytest.mark.parametrize("tenths", range(1, 9))
@pytest.mark.parametrize("total", [10, 70, 96_000])
def test_stages_of_piecewise_change_exactly_at_their_boundary(tenths, total):
    """With start at a tenth and each stage a tenth long, every boundary is a whole image."""
    stages = 10 - tenths
    for a in range(1, stages):
        seen = (tenths + a) * total // 10
        before, after = (
            piecewise(tensor(50.0), at / total, start=tenths / 10, stages=stages, q=2.0)
            for at in (seen - 1, seen)
        )
        assert after.item() == pytest.approx(50 * (1 - 2.0**-a), rel=1e-9)
        assert before.item() == pytest.approx(50 * (1 - 2.0 ** -(a - 1)), rel=1e-9)


@pytest.mark.parametrize("t", [0.01, 0.5, 3.0, 60.0])
@pytest.mark.parametrize("stage", range(1, 9))
def test_sigmoid_and_constant_equal_their_formulas(t, stage):
    progress = (stage - 0.5) / 8
    wanted = t * max(0, 1 - 2.0**-stage * n_of(t))
    assert sigmoid(tensor(t), progress).item() == pytest.approx(wanted, rel=1e-12)
    assert constant(tensor(t), progress).item() == pytest.approx(t * (1 - 2.0**-stage))


def test_fixed_is_sigmoid_with_one_stage():
    for progress in PROGRESS:
        assert torch.equal(fixed(TIMES, progress), sigmoid(TIMES, progress, q=256.0, stages=1))


@pytest.mark.parametrize("a", range(1, 8))
def test_smooth_meets_sigmoid_at_the_end_of_each_stage(a):
    """At progress a/8 `smooth` has the ratio that `sigmoid` held through stage a, just before."""
    before = sigmoid(TIMES, a / 8 - 1e-6)
    torch.testing.assert_close(smooth(TIMES, a / 8), before, rtol=1e-12, atol=0)
    assert (smooth(TIMES, a / 8 - 0.05) <= before).all()
    assert (smooth(TIMES, a / 8 - 0.05) < before).any()


def test_smooth_starts_as_pretraining():
    assert (smooth(TIMES, 0.0) == 0).all()


@pytest.mark.parametrize("start", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("stages", [2, 4, 9])
def test_piecewise_is_pretraining_up_to_start_and_through_its_first_stage(start, stages):
    """Stage a = 0, 1, ... begins at start + a (1 - start) / stages; in it q^-a n(t)."""
    begin = [start + a * (1 - start) / stages for a in range(stages + 1)]
    for progress in (0.0, start / 2, start, begin[1] - 1e-6):
        assert (piecewise(TIMES, progress, start=start, stages=stages) == 0).all()
    for a in range(1, stages):
        for progress in (begin[a] + 1e-6, begin[a + 1] - 1e-6):
            r = piecewise(TIMES, progress, start=start, stages=stages)
            wanted = [t * max(0, 1 - 2.0**-a * n_of(t)) for t in TIMES.clamp(max=700).tolist()]
            low = TIMES <= 700
            torch.testing.assert_close(r[low], tensor(*wanted)[low], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("t", [0.01, 0.5, 1.0, 3.0, 60.0])
@pytest.mark.parametrize("stage", range(1, 9))
def test_logsnr_and_power_equal_their_formulas(t, stage):
    progress = (stage - 0.5) / 8
    n = min(1 + 0.7 * math.log2(1 + 1 / t**2), 4.0)
    wanted = t * max(0, 1 - 2.0**-stage * n)
    assert logsnr(tensor(t), progress, k=0.7).item() == pytest.approx(wanted, rel=1e-12)
    wanted = t * max(0, 1 - 2.0**-stage * min(1 + t**-2.5, 4.0))
    assert power(tensor(t), progress, k=2.5).item() == pytest.approx(wanted, rel=1e-12)


def test_icts_discretizations_double_from_11_to_1281():
    seen = [_ict_points(i / 800, 10, 1280) for i in range(800)]
    assert list(dict.fromkeys(seen)) == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert all(seen.count(n) == 100 for n in set(seen))


def test_cts_discretizations_equal_the_formula():
    """N(k) from s0 = 2 to s1 = 150, with integers in place of progress."""
    for k in range(0, 1000, 7):
        inside = (k * (151**2 - 4) + 4 * 1000) / 1000
        assert _ct_points(k / 1000, 2, 150) == math.ceil(inside**0.5 - 1) + 1
    assert _ct_points(0.0, 2, 150) == 2


def karras(points, low=0.002, high=80.0):
    ends = low ** (1 / 7), high ** (1 / 7)
    return [(ends[0] + i / (points - 1) * (ends[1] - ends[0])) ** 7 for i in range(points)]


@every_grid
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("progress", [0.0, 0.3, 0.99])
def test_pairs_are_neighbours_on_the_karras_grid(name, dtype, progress):
    """However t falls, snapped to the grid it is some point and r the point before."""
    options = {key: default for key, (_, default) in schedule_options(name).items()}
    points = {"ct": _ct_points, "ict": _ict_points}[name](progress, options["s0"], options["s1"])
    grid = torch.tensor(karras(points), dtype=torch.float64)
    t = torch.logspace(-2.6, 1.9, 500, dtype=dtype)
    s = SNAPS[name](t, progress, **options)
    index = (s.double()[:, None] - grid).abs().argmin(1)
    torch.testing.assert_close(s.double(), grid[index], rtol=1e-4, atol=0)
    r = SCHEDULES[name](s, progress)
    torch.testing.assert_close(r.double(), grid[index - 1], rtol=1e-4, atol=0)
    assert (index >= 1).all() and (s >= t * (1 - 1e-3))[t < 80].all()
    assert (grid[index - 1] <= t.double() * (1 + 1e-3)).all()


def test_snapped_pairs_have_icts_probabilities():
    """The share of the pair (t_i, t_i-1) is Phi(ln t_i) - Phi(ln t_i-1) under the prior."""
    mean, std, progress = -1.1, 2.0, 0.2
    p = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    t = (torch.special.ndtri(p) * std + mean).exp()
    s = SNAPS["ict"](t, progress, s0=10, s1=1280, low=0.002, high=80.0)
    grid = karras(_ict_points(progress, 10, 1280))
    for below, point in list(itertools.pairwise(grid))[1:-1]:
        share = ((s / point - 1).abs() < 1e-6).double().mean().item()
        ends = [0.5 * math.erf((math.log(v) - mean) / std / math.sqrt(2)) for v in (below, point)]
        assert share == pytest.approx(ends[1] - ends[0], abs=1e-4)
