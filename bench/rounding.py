"""How much of a small difference is rounding: python bench/rounding.py --model FILE --data FILE

ECT's last stages compare f(x_t) with f(x_r) for r near t. Here r = t (1 - share), in units of the
noise level, with the noise of x_t. For each precision, of torch's kernels and of the native ones,
it prints |f - f'| per image, where f' is f in double precision; the difference |f(x_t) - f(x_r)|,
beside the true one; and |g - g'| / |g'|, where g is the gradient of the mean squared difference
with f(x_r) held fixed.
"""

import contextlib
import copy
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from ect.data.batches import Images
from ect.models import build
from ect.networks import native
from ect.process import expand
from ect.runtime import device
from ect.runtime.options import Parser, amount, errors_as_lines, whole
from ect.runtime.versions import setting

KINDS = [("torch", name) for name in ("fp32", "bf16", "fp16")]
KINDS += [("native", name) for name in ("fp32", "tf32", "bf16")]


def outputs(f, network, precision, images, kind=torch.float32):
    """f at noise levels t and r, each (B, C, H, W), and the gradient (parameters,)."""
    x, eps, t, r = (part.to(kind) for part in images)
    f = copy.copy(f)
    f.network = network.requires_grad_()
    used = device.precision(precision) if precision else contextlib.nullcontext()
    with used:
        with torch.no_grad():
            target = f(x + expand(r, x) * eps, r).double()
        output = f(x + expand(t, x) * eps, t).double()
    (output - target).square().sum().div(len(x)).backward()
    gradient = [weight.grad.double().flatten() for weight in network.parameters()]
    return output.detach(), target, torch.cat(gradient)


def norm(x):
    return x.flatten(1).norm(dim=1).mean().item()


def parser():
    found = Parser(description=__doc__.partition("\n")[0])
    found.add_argument("--model", required=True)
    found.add_argument("--data", required=True)
    found.add_argument("--share", type=amount(1e-9, 0.999), default=1 / 256)
    found.add_argument("--images", type=whole(1, 10**6), default=256)
    return found


def loaded(args):
    """f, and images (B, C, H, W); raises `ValueError` where they do not fit together."""
    f, _, about = build.load_model(args.model)
    images = Images(args.data)
    if setting(about["network"], "classes"):
        raise ValueError(f"--model: found classes in {args.model}; allowed: a model without")
    if list(images.shape) != list(about["shape"]):
        found = f"--data: found images {images.shape}, (C, H, W)"
        raise ValueError(f"{found}; allowed: {tuple(about['shape'])}, those of the model")
    native.use(copy.deepcopy(f.network))  # raises for one that has no native kernels
    return f, images.batch(0, 0, args.images)


def main():
    args, random = parser().parse_args(), torch.Generator().manual_seed(0)
    f, x = loaded(args)
    eps = torch.randn(x.shape, generator=random)
    t = (torch.randn(len(x), generator=random) * 1.6).exp()
    images = (x, eps, t, t * (1 - args.share))
    exact = outputs(f, copy.deepcopy(f.network).double(), None, images, torch.float64)
    print(json.dumps({"true_difference": norm(exact[0] - exact[1])}))
    for kernels, precision in KINDS:
        network = copy.deepcopy(f.network)
        if kernels == "native":
            native.use(network, precision)
        found = outputs(f, network, precision, images)
        line = {"kernels": kernels, "precision": precision}
        line |= {"error": norm(found[0] - exact[0]), "difference": norm(found[0] - found[1])}
        line["gradient"] = ((found[2] - exact[2]).norm() / exact[2].norm()).item()
        print(json.dumps(line))


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
