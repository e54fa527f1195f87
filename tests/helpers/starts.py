"""Settings that start from a model elsewhere."""

import copy

from tests.helpers.runs import TUNE

PARTS = ("network", "process", "parameterization", "c_noise")


def settings(target="own"):
    """The settings of a tuning run that takes the network from its start."""
    recipe = copy.deepcopy(TUNE) | {"target": target}
    return {key: value for key, value in recipe.items() if key not in PARTS}
