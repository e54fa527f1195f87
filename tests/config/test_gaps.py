"""The plan's fp32 is torch's, so that a schedule is refused where a job would lose its gap."""

import pytest
import torch

from ect.config import gaps
from ect.config.schedule import Schedule
from ect.config.training import Prior
from ect.models.build import PROCESSES
from ect.objective import PRIORS
from ect.schedule import CONTINUOUS_TIME, SCHEDULES, SNAPS

LEVELS = gaps.levels(Prior(mean=0.0, std=1.6).resolved())
WIDE = gaps.levels(Prior(kind="karras").resolved())


@pytest.mark.parametrize("name", PROCESSES)
def test_times_are_those_of_the_processes(name):
    s = torch.tensor(WIDE, dtype=torch.float64)
    found = torch.tensor([gaps.TIMES[name](gaps.Double(level)) for level in WIDE])
    assert torch.allclose(found.double(), PROCESSES[name]().time(s), rtol=1e-6)


@pytest.mark.parametrize("prior", [Prior(mean=-1.1, std=2.0), Prior(kind="karras", low=0.01)])
def test_levels_are_the_quantiles_of_the_prior(prior):
    settings = prior.resolved()
    generator = torch.Generator().manual_seed(0)
    draws = PRIORS[settings["kind"]](generator, 100_000, **settings["options"])
    at = torch.tensor(gaps.QUANTILES)
    below = (draws[:, None] < torch.tensor(gaps.levels(settings))).float().mean(0)
    assert (below - at).abs().max() < 0.01


def in_torch(block, levels):
    """Whether a schedule's gap is lost at each level, by torch."""
    t = torch.tensor(levels)
    if block.map in SNAPS:
        t = SNAPS[block.map](t, gaps.END, **block.options())
    rounded, exact = (SCHEDULES[block.map](x, gaps.END, **block.options()) for x in (t, t.double()))
    return (rounded.double() - exact).abs() >= t.double() - exact


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n not in (*CONTINUOUS_TIME, "zero")])
def test_a_gap_is_lost_where_torch_loses_it(name):
    key = next(key for key in ("stages", "s1", "q") if key in Schedule(map=name).options())
    values = {"stages": [2, 8, 20, 24, 25, 26, 27], "s1": [150, 1280, 5000, 10**5, 10**6]}
    found = []
    for value in values.get(key, [2.0, 256.0, 1e6, 3e7, 1e9]):
        block = Schedule(map=name, **{key: value})
        mine = [gaps.lost(block, [level]) is not None for level in LEVELS]
        theirs = in_torch(block, LEVELS).float().mean().item()
        assert abs(sum(mine) / len(mine) - theirs) < 0.1, (value, theirs)
        found.append(any(mine))
    assert not found[0] and not found[1] and found[-1]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", [LEVELS, WIDE])
def test_no_schedule_loses_its_gap_as_it_is(process, levels):
    for name in SCHEDULES:
        assert gaps.lost(Schedule(map=name), levels, process) is None, name


def test_a_gap_is_lost_in_the_time_of_a_process_before():
    """Flow's t = s / (1 + s) is nearly 1 at high s, where fp32 is coarse."""
    assert gaps.lost(Schedule(map="sigmoid", stages=20), LEVELS, "ve") is None
    level = gaps.lost(Schedule(map="sigmoid", stages=20), LEVELS, "flow")
    t = torch.tensor(level)
    r = SCHEDULES["sigmoid"](t, gaps.END, stages=20)
    flow = PROCESSES["flow"]()
    assert r < t and flow.time(r) == flow.time(t)
    timed = Schedule(map="constant", stages=26, clock="time")
    assert gaps.lost(timed, LEVELS, "flow") is not None
    assert gaps.lost(timed, LEVELS) is None  # whose time only the job knows
