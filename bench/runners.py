"""What the benchmarks run: networks, images, the trainer's own step, and sampling."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from ect import sampler
from ect.data import batches, file
from ect.models import build
from ect.runtime import device
from ect.runtime.options import Parser, amount, whole
from ect.runtime.versions import MASKS
from ect.training import loop, parts, state

NETWORKS = {  # (resolution, image channels, network)
    "cifar": (32, 3, {"channels": 128, "multipliers": [2, 2, 2], "blocks": 4, "attention": [16]}),
    "small": (32, 3, {"channels": 32, "multipliers": [2, 2, 2], "blocks": 4, "attention": [16]}),
    "digits": (8, 1, {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4]}),
}
DROPOUT, FAR = 0.2, 10**9  # FAR: so many images that a schedule's last stage does not end


def options(text):
    """A parser of the options that say which step is timed, and how often; its description is the
    first line of `text`."""
    parser = Parser(description=text.partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=whole(1, 10**6), default=32)
    parser.add_argument("--dropout", type=amount(0, 0.99), default=DROPOUT)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--kernels", choices=("torch", "native"), default="torch")
    parser.add_argument("--steps", type=whole(1, 10**6), default=7, help="timed steps of each kind")
    return parser


def parsed(parser):
    """The words of the command line; kernels must compute in the precision."""
    args = parser.parse_args()
    if (args.kernels, args.precision) == ("native", "fp16"):
        parser.error("--precision: found fp16 with native kernels; allowed: fp32, tf32, bf16")
    return args


def settings_of(args, work):
    """The trainer's settings for a kind of work, `tune` or `pretrain`."""
    tune = work == "tune"
    zero = {"map": "zero", "options": {}, "clock": "noise"}
    last = {"map": "sigmoid", "options": {"q": 2.0, "stages": 8, "k": 8.0, "b": 1.0}}
    return {
        "network": NETWORKS[args.network][2],
        "process": "ve",
        "parameterization": "edm",
        "c_noise": "log_s",
        "recipe": {
            "batch": args.batch,
            "prior": {"kind": "lognormal", "options": {"mean": -1.1, "std": 2.0}},
            "distance": {"kind": "huber" if tune else "squared", "c": 0.0},
            "weight": "gap" if tune else "edm",
            "optimizer": {
                "name": "radam", "lr": 1e-4, "betas": [0.9, 0.999], "warmup_kimg": 0.0,
                "decay_from": 1.0, "lr_final": 0.0,
            },
            "ema_halflife_kimg": 500.0,
            "ema_ramp": None,
            "dropout": args.dropout,
            **({"masks": MASKS} if args.dropout else {}),
            **({} if args.precision == "fp32" else {"precision": args.precision}),
            **({} if args.kernels == "torch" else {"kernels": args.kernels}),
        },
        "schedule": last | {"clock": "noise"} if tune else zero,
        "target": "own",
        "seed": 0,
        "first_kimg": 0,
        "last_kimg": FAR // 1000,
        "snapshots": 0,
    }  # fmt: skip


def images_of(args, folder, count=512):
    """A dataset file of random pixels: what they show costs no time."""
    resolution, channels, _ = NETWORKS[args.network]
    pixels = np.random.default_rng(0).integers(
        0, 256, (count, resolution, resolution, channels), np.uint8
    )
    path = Path(folder) / "random.safetensors"
    about = {"classes": None, "shift": 127.5, "scale": 1 / 127.5, "sd": 0.5}
    with file.writing(path, about) as writer:
        for split, part in (("train", pixels[:-8]), ("test", pixels[-8:])):
            writer.add(split, part, [0] * len(part))
    return batches.Images(path)


class Ours:
    """The trainer's step, at the end of a run; `changes` replace settings."""

    def __init__(self, args, images, work, compiled=False, **changes):
        self.settings, self.images = settings_of(args, work) | changes, images
        self.state = state.State(self.settings, images)
        self.state.seen = FAR - 10**6
        self.objective = parts.make_objective(self.settings, images.sd)
        about = build.description(self.settings, images)
        self.f = build.make_consistency(self.state.network, self.objective.process, about)
        if compiled:
            self.f = parts.compiled(self.f, self.objective)

    @device.deterministic()
    def step(self):
        loop.step(self.state, self.settings, self.images, self.objective, self.f, FAR)


class Sampling:
    """One-step images, as `python -m ect sample` draws them."""

    def __init__(self, args, images, precision="fp32", compiled=False):
        self.precision = precision
        self.ours = Ours(args, images, "tune", compiled)
        self.ours.state.network.eval()
        self.eps = sampler.noise(range(args.batch), 1, images.shape).to(device.current())

    def step(self):
        with torch.no_grad(), device.deterministic(), device.precision(self.precision):
            sampler.multistep(self.ours.f, self.ours.objective.process, self.eps)
