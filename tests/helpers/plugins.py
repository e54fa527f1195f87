"""Two files of plugins: a map, and a part of every other kind."""

BITS = """
from ect.plugins import schedule

@schedule
def same_ratio(t, progress, q: float = 2.0, stages: int = 8):
    return t * (1 - q ** -(int(progress * stages + 1e-9) + 1))
"""
REST = '''
"""Copies of vp_cosine, gap and euler, and means over rows as features."""
import math

from ect import ode
from ect.plugins import features, process, sampler, weight
from ect.process import Process
from ect.sampler import grid

@process
class Cosine(Process):
    t_max = 1.0

    def coefficients(self, t):
        return (t * math.pi / 2).cos(), (t * math.pi / 2).sin()

    def time(self, s):
        return s.atan() * 2 / math.pi

@weight
def slope(s, r, sd):
    return 1 / (s - r)

@sampler
def straight(f, process, eps, steps: int = 3, rho: float = 7):
    assert len(eps) == 1
    levels = grid(steps, rho=rho)
    y = eps[0] * levels[0]
    for s, r in zip(levels, levels[1:]):
        y = ode.euler(f, process, y, s, r)
    return y

@sampler
def hops(f, process, eps, times: list[float] = (0.5,)):
    assert len(eps) == 1 + len(times)
    return eps[-1]

@features
def rows(pixels):
    return pixels[..., 0].mean(1)
'''
