"""The noise levels that a number of steps stands for, where only the number is named: the study's.

A study's multistep samplers are {name: {times: [...]}}, with `sigma_min` where one has it. An
exported folder carries them in sampling.json.
"""

from typing import NamedTuple

from ect.runtime import checkpoint
from ect.runtime.text import shown

CARRIED = "sampling.json"
LEAST = 1e-6  # the lowest noise level, as in a config
ECT = {1: [], 2: [0.821]}  # times by the number of steps: ECT's for CIFAR-10


class Chosen(NamedTuple):
    """Options of multistep sampling, what they are in words, and whether they are the study's."""

    options: dict
    words: str
    of_study: bool


def chosen(samplers, steps):
    """The `Chosen` of a number of steps: the study's, or ECT's for CIFAR-10 if the study has none.
    Raises `ValueError` for a number that neither has, or that the study has with two meanings."""
    listed = samplers.items() if type(steps) is int else ()
    found = {name: options for name, options in listed if count(options) == steps}
    meanings = list(found.values())
    if any(other != meanings[0] for other in meanings):
        both = "; ".join(f"{shown(name)}, {described(options)}" for name, options in found.items())
        raise ValueError(f"steps is {steps}, and the study has {both}; allowed: times")
    if found:
        words = f"{described(meanings[0])}: the study's {' and '.join(map(shown, found))}"
        return Chosen(meanings[0], words, True)
    if type(steps) is not int or steps not in ECT:
        known = sorted({*ECT, *map(count, samplers.values())})
        raise ValueError(f"steps is {steps!r}; allowed: {', '.join(map(str, known))}, or times")
    options = {"times": ECT[steps]}
    words = f"{described(options)}: ECT's for CIFAR-10, as no {steps}-step sampler is recorded here"
    return Chosen(options, words, False)


def count(options):
    return 1 + len(options["times"])


def described(options):
    """'2 steps at s = 80, 0.5'."""
    levels = ", ".join(f"{s:g}" for s in (80, *options["times"]))
    shift = f" with sigma_min {options['sigma_min']:g}" if options.get("sigma_min") else ""
    return f"{count(options)} step{'s' * bool(options['times'])} at s = {levels}{shift}"


def falling(times):
    """Whether noise levels fall, from below 80 to `LEAST` or more."""
    return all(LEAST <= low < high for high, low in zip([80.0, *times], times))


def is_multistep(options):
    """Whether this value, read from a file, is the options of a multistep sampler."""
    if not isinstance(options, dict) or not {"times"} <= {*options} <= {"times", "sigma_min"}:
        return False
    times, shift = options["times"], options.get("sigma_min", 0.0)
    numbers = isinstance(times, list) and all(type(s) in (int, float) for s in (*times, shift))
    return numbers and 0 <= shift < 80 and falling(times)


def read(path):
    """The samplers in a sampling.json; {} if there is no such file. Raises `ValueError`."""
    if not path.exists():
        return {}
    samplers = checkpoint.read_json(path)
    require(samplers, path)
    return samplers


def require(samplers, place):
    """Raise `ValueError` that begins with `place` unless these can be the samplers of a study."""
    wrong = [name for name, options in samplers.items() if not is_multistep(options)]
    if wrong:
        raise ValueError(
            f"{place}: {wrong[0]!r:.80} is {samplers[wrong[0]]!r:.80}; allowed: {{'times': [...]}},"
            " falling noise levels below 80, down to 1e-6, and a sigma_min >= 0"
        )
