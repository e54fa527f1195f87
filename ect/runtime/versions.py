"""The version of what each stage computes, and the defaults of keys that settings may leave out."""

from typing import Any

# The version of what each stage computes. Raising one re-runs its jobs: do so whenever the same
# settings would give other bits.
STAGES = {
    "prepare": 1,
    "import": 1,
    "classifier": 1,
    "train": 2,
    "perfect": 1,
    "average": 1,
    "trajectories": 1,
    "sample": 1,
    "extract": 1,
    "evaluate": 2,
    "nearest": 1,
    "trace": 2,
    "search": 2,
    "report": 7,
}
# The version of ect/networks/kernels. Only recipes that use them have it in their settings.
NATIVE = 3
# The version of the masks of ect/networks/dropout.py. Only recipes with dropout have it in theirs.
MASKS = 2
# How often what becomes of EDM's files changed. Only their imports have it in their version.
EDM_FILES = 1

# The defaults of absent keys. A job's settings hold these keys only where they differ, so that a
# new key does not change the settings of other jobs; files of models and older settings lack them.
DEFAULTS: dict[str, Any] = {
    # of a dataset
    "resize": "lanczos",
    # of a recipe or of sampling
    "microbatch": None,
    "precision": "fp32",
    "kernels": "torch",
    "compile": False,
    "shared_dropout": True,
    "ema_halflife_kimg": None,
    "ema_std": None,
    "dropout_at": None,
    "truncate": None,
    "trajectories": None,
    "adaptive": False,
    "derivative": "jvp",
    "derivative_step": 0.005,
    "augment": None,
    "ema_ramp_before": False,
    "joint": None,
    "mu0": None,
    # of a network
    "classes": 0,
    "span": False,
    "uncertainty": False,
    "augment_labels": 0,
    # of f: EDM's
    "c_noise": "log_s",
    "c_in": "scaled",
    # of an evaluation
    "metrics": ["fd", "kd"],
}


def setting(settings, key):
    """A key of a job's settings, of a network or of a model's description; or its default."""
    return settings.get(key, DEFAULTS[key])


def computed(settings):
    """How the network of a recipe, or of sampling, is computed, in words."""
    return setting(settings, "precision") + ", compiled" * setting(settings, "compile")
