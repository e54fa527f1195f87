"""The names that a config may use, and the options behind each. Loads no torch.

A schedule is found by its function's name in `ect/schedule.py`, and its options are that function's
keyword arguments. The other parts live in files that need torch, so their names are repeated here;
a test compares them with the tables in those files.
"""

import inspect

from ect.schedule import SCHEDULES

PROCESSES = ("ve", "flow", "vp_cosine", "vp_linear")
PARAMETERIZATIONS = ("edm", "velocity", "noise")
# f divides by alpha, which is 0 at t_max here. A plugin's process cannot be checked before its
# first job, so it gets `edm` and `velocity` only.
UNDEFINED = (("flow", "noise"), ("vp_cosine", "noise"))
C_NOISE = ("log_s", "log_half_s", "time", "vp", "ddpm")
PRIORS = ("lognormal", "karras", "student")
JOINTS = ("sorted", "lower")
DISTANCES = ("squared", "sum_squared", "huber", "lpips")
WEIGHTS = ("uniform", "gap", "inverse_square", "edm", "flow")
WEIGHTS_OF_SD = ("edm",)
ARCHITECTURES = ("ddpmpp", "ncsnpp", "adm", "edm2")
AUGMENTATIONS = {"edm": 9, "edm6": 6}  # how many labels each tells the network
EMBEDDINGS = ("positional", "fourier")
TARGETS = ("own", "ema", "euler", "heun")
DERIVATIVES = ("jvp", "difference")
CLOCKS = ("noise", "time")
RESIZES = ("lanczos", "dhariwal")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
KERNELS = ("torch", "native")
OPTIMIZERS = ("adam", "radam")
DECAYS = ("inverse_sqrt",)
SAMPLERS = ("multistep", "flow_map", "euler", "heun", "dpm_solver")
EXTRACTORS = ("classifier", "inception", "dinov2", "efficientnet")
METRICS = ("fd", "kd", "precision", "recall", "inception_score")
FORMATS = ("edm", "diffusers", "ect", "state_dict")
SOURCES = (
    "digits", "images", "parquet", "webdataset", "cifar10", "mnist", "fashion_mnist", "imagenet64",
)  # fmt: skip

POWERS = tuple(2**k for k in range(1, 11))
# The range of each option, in every schedule that has it: (test, words).
OPTION_RANGES = {
    "q": (lambda q: q > 1, "> 1"),
    "stages": (lambda stages: 1 <= stages <= 1000, "from 1 to 1000"),
    "start": (lambda start: 0 <= start < 1, "0 <= start < 1"),
    "k": (lambda k: k >= 0, ">= 0"),
    "b": (lambda b: b >= 0, ">= 0"),
    "cut": (lambda cut: cut > 0, "> 0"),
    "s0": (lambda s0: 1 <= s0 <= 10**6, "from 1 to 1000000"),
    "s1": (lambda s1: 1 <= s1 <= 10**6, "from 1 to 1000000"),
    "low": (lambda low: 1e-5 <= low <= 1e5, "from 0.00001 to 100000"),
    "high": (lambda high: 1e-5 <= high <= 1e5, "from 0.00001 to 100000"),
    "warmup": (lambda warmup: 0 < warmup <= 1, "0 < warmup <= 1"),
    "pairs": (lambda pairs: 0 <= pairs <= 1, "0 <= pairs <= 1"),
    "first": (lambda first: 0 < first <= 1, "0 < first <= 1"),
    "last": (lambda last: 1e-5 <= last <= 1, "from 0.00001 to 1"),
    "end": (lambda end: 0 < end <= 1, "0 < end <= 1"),
    "gamma": (lambda gamma: 0 < gamma <= 1000, "0 < gamma <= 1000"),
    "steps": (lambda steps: steps in POWERS, "a power of 2, from 2 to 1024"),
    "p": (lambda p: 0 <= p <= 2, "0 <= p <= 2"),
    "c": (lambda c: 1e-8 <= c <= 100, "from 0.00000001 to 100"),
}


def undefined(process, parameterization):
    """Whether f may divide by alpha = 0: see `UNDEFINED`."""
    of_plugin = process not in PROCESSES and parameterization == "noise"
    return of_plugin or (process, parameterization) in UNDEFINED


def schedule_options(name):
    """{option: (type, default)} of a schedule's keyword arguments."""
    parameters = list(inspect.signature(SCHEDULES[name]).parameters.values())[2:]
    return {p.name: (p.annotation, p.default) for p in parameters}
