"""The released code of ECT, from a folder that holds a checkout of locuslab/ect, beside ours."""

import argparse
import copy
import sys

import numpy as np
import torch
from runners import NETWORKS, Ours

from ect.models.importers import edm
from ect.runtime import device


class Released:
    """The released code's step: its network, ECMLoss, RAdam, and its loop's lines after backward.

    As there, cuDNN tries out algorithms for a GPU's convolutions (`benchmark`), and with fp16 the
    rest, in float32, is computed in tf32. Its loss keeps the dropout mask through torch.cuda's
    random state; without a GPU the CPU's replaces it.
    """

    def __init__(self, args, images, folder):
        sys.path.insert(0, str(folder))
        from training.loss import ECMLoss
        from training.networks import ECMPrecond

        if device.current().type != "cuda":
            torch.cuda.get_rng_state, torch.cuda.set_rng_state = (
                torch.get_rng_state,
                torch.set_rng_state,
            )
        resolution, channels, network = NETWORKS[args.network]
        torch.manual_seed(0)
        self.net = ECMPrecond(
            resolution, channels, model_type="SongUNet", dropout=args.dropout,
            model_channels=network["channels"], channel_mult=network["multipliers"],
            num_blocks=network["blocks"], attn_resolutions=network["attention"],
            embedding_type="positional", encoder_type="standard", decoder_type="standard",
            channel_mult_noise=1, resample_filter=[1, 1], augment_dim=0,
            use_fp16=args.released == "fp16",
        )  # fmt: skip
        self.net.train().to(device.current())
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.loss = ECMLoss(adj="sigmoid")
        self.loss.update_schedule(7)
        self.optimizer = torch.optim.RAdam(self.net.parameters(), lr=1e-4)
        self.images, self.batch, self.seen = images, args.batch, 0
        self.precision = "tf32" if args.released == "fp16" else "fp32"

    def step(self):
        torch.backends.cudnn.benchmark = True
        with device.precision(self.precision):
            self.update()
        torch.backends.cudnn.benchmark = False

    def update(self):
        self.optimizer.zero_grad(set_to_none=True)
        rows = np.arange(self.seen, self.seen + self.batch) % len(self.images.pixels)
        pixels = torch.from_numpy(self.images.pixels[rows.tolist()]).permute(0, 3, 1, 2)
        x = pixels.to(device.current()).to(torch.float32) / 127.5 - 1
        self.loss(net=self.net, images=x).mean().backward()
        for weight in self.net.parameters():
            weight.grad.nan_to_num_(0.0, 1e5, -1e5)
        self.optimizer.step()
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.net.parameters()):
                average.lerp_(weight, 1e-4)
        self.seen += self.batch


def losses_apart(args, images, kernels):
    """The largest relative distance, over a batch, of our loss from the released one, with its
    weights (perturbed, as some start near 0), the same images, noise and levels, and no dropout."""
    alike = {"dropout": 0.0, "kernels": kernels, "released": "fp32"}
    args = argparse.Namespace(**{**vars(args), **alike})
    released, ours = Released(args, images, args.against), Ours(args, images, "tune")
    with torch.no_grad():
        for weight in released.net.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.02)
        resolution, _, network = NETWORKS[args.network]
        kind = {"architecture": "ddpmpp", "embedding": "positional", "classes": 0}
        weights = edm.renamed(released.net.model.state_dict(), kind | network, resolution)
        ours.state.network.load_state_dict(weights)
        x = images.batch(0, 0, args.batch).contiguous().to(device.current())
        torch.manual_seed(1)
        wanted = released.loss(net=released.net, images=x)
        torch.manual_seed(1)
        s = (torch.randn([len(x), 1, 1, 1], device=x.device) * 2.0 - 1.1).exp().flatten()
        eps = torch.randn_like(x)
        with device.precision(args.precision):
            loss = ours.objective(ours.f, x, eps, s, 1 - 1e-6).loss
    return ((loss - wanted).abs() / wanted).max().item()
