"""How long a training step takes, what it is made of, and how near that is to the machine's limit.

    python bench/step.py --network small --batch 32
    python bench/step.py --network cifar --batch 8 --precision bf16 --against FOLDER

Times the trainer's own step (ECT in its last stage with dropout 0.2, and pretraining) and one-step
sampling: medians and quartiles after a warm-up.

With `--against`, a folder that holds a checkout of locuslab/ect, its network, loss, optimizer and
moving average take turns with ours in one process, on batches of the same shape. The result is the
ratio of times, turn by turn. The losses are compared too, with its weights, the same images, noise
and noise levels, without dropout. With `--released fp16` it runs in its own fp16 and in tf32. With
`--kernels native` the step of torch's kernels takes turns too, with `--compile` the compiled step
and drawing: with ratios, turn by turn, the processor seconds of their first call, and how far the
gradients of both steps are from that in double precision, and from each other.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time

import numpy as np
import torch
from released import Released, losses_apart
from runners import NETWORKS, Ours, Sampling, images_of, options, parsed
from torch.utils.flop_counter import FlopCounterMode

from ect.networks.dropout import Masks
from ect.runtime import device
from ect.runtime.options import errors_as_lines, folder, new_file, whole
from ect.training import average, loop

QUARTILES = (0.25, 0.5, 0.75)
PATIENCE = 10  # seconds for a product: bfloat16 takes minutes on a processor that has none


def timed(step):
    """Seconds of one call, the device's work included."""
    if device.current().type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.current().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def processor(step):
    """Processor seconds of one call, those of a compiler that it starts included."""
    before = os.times()
    step()
    return sum(os.times()[:4]) - sum(before[:4])


def turns(steps, warm_up, count):
    """{name: (wall-clock seconds, processor seconds) of each step}; the steps take turns, so that
    slow phases of the machine meet all of them."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    taken = {name: [] for name in steps}
    for _ in range(count):
        for name, step in steps.items():
            before = time.process_time()
            taken[name].append((timed(step), time.process_time() - before))
    return {name: np.array(pairs).T for name, pairs in taken.items()}


def flops(step):
    """Floating-point operations of the matrix products and convolutions of one step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peaks(args):
    """FLOP/s of one large matrix product and of one convolution of the network's widest kind, in
    the precision of the run: what this machine reaches in the same process."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(args.precision, torch.float32)
    current, channels = device.current(), 2 * NETWORKS[args.network][2]["channels"]
    a = torch.randn(args.matrix, args.matrix, device=current, dtype=dtype)
    x = torch.randn(args.batch, channels, 32, 32, device=current, dtype=dtype)
    w = torch.randn(channels, channels, 3, 3, device=current, dtype=dtype)
    x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
    work = {
        "matrix": (lambda: a @ a, 2 * args.matrix**3),
        "convolution": (
            lambda: torch.nn.functional.conv2d(x, w, padding=1),
            2 * x.numel() * channels * 9,
        ),
    }
    rates = {}
    with torch.no_grad():
        for name, (product, count) in work.items():
            times = [timed(product)]  # the first of six, where there is time for more, warms up
            while len(times) < 6 and sum(times) < PATIENCE:
                times.append(timed(product))
            rates[name] = count / min(times[1:] or times)
    return rates


def split(ours, count):
    """Median seconds of the parts of a tuning step, each timed alone."""
    settings, state, images = ours.settings, ours.state, ours.images
    size, recipe = settings["recipe"]["batch"], settings["recipe"]
    current, seen = device.current(), [0]
    x = images.batch(0, 0, size).to(current)
    eps, s = torch.randn_like(x), torch.rand(size, device=current) + 0.1
    r = s * 0.99

    def batch():
        seen[0] += size
        images.batch(0, seen[0], size).to(current)
        torch.randn(x.shape).to(current)

    with device.precision(recipe.get("precision", "fp32")):
        terms = ours.objective(ours.f, x, eps, s, 0.99)
        loss = terms.loss.mean()

        def forward():
            ours.objective.evaluate(ours.f, x, eps, s, Masks())

        def target():
            ours.objective.target(ours.f, x, eps, s, r, Masks())

        def backward():
            loss.backward(retain_graph=True)

        parts = {"data": batch, "forward": forward, "target": target, "backward": backward}
        parts |= {
            "optimizer": state.optimizer.step,
            "average": lambda: average.update(state.average, state.network.state_dict(), 0.999),
        }
        taken = {}
        for name, part in parts.items():
            part()
            taken[name] = statistics.median(timed(part) for _ in range(count))
    return taken


def memory():
    """Peak memory of a GPU, or else of the process, in MiB."""
    if device.current().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def memory_of(step):
    """GPU memory in MiB that a step takes in addition to weights, averages and moments."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def gradient(ours, kind=torch.float32):
    """The gradient of the loss of one batch, (parameters,), computed in `kind`."""
    network, size = ours.state.network, ours.settings["recipe"]["batch"]
    batch = (ours.settings, ours.images, ours.objective, 0, size, slice(0, size))
    network.to(kind).zero_grad()
    with device.deterministic():
        x, eps, s = (part.to(kind) for part in loop.draw_batch(*batch)[:3])
        terms = ours.objective(ours.f, x, eps, s, 1 - 2**-20, Masks(0, np.arange(size)))
        terms.loss.mean().backward()
    found = torch.cat([weight.grad.double().flatten() for weight in network.parameters()])
    network.to(torch.float32).zero_grad()
    return found


def gradients_apart(eager, compiled):
    """{pair: |a - b| / |b|} of the gradients of a step, eager, compiled and in double precision, on
    equal weights."""
    compiled.state.network.load_state_dict(eager.state.network.state_dict())
    exact = gradient(eager, torch.float64)
    plain, other = gradient(eager), gradient(compiled)
    pairs = {"eager, double": (plain, exact), "compiled, double": (other, exact)}
    pairs["compiled, eager"] = other, plain
    return {name: ((a - b).norm() / b.norm()).item() for name, (a, b) in pairs.items()}


def measure(args):
    """All that is printed, as a mapping."""
    with tempfile.TemporaryDirectory() as folder:
        images = images_of(args, folder)
        ours = {work: Ours(args, images, work) for work in ("tune", "pretrain")}
        steps = {work: runner.step for work, runner in ours.items()}
        steps["sample"] = Sampling(args, images).step
        if args.precision != "fp32":
            steps[f"sample, {args.precision}"] = Sampling(args, images, args.precision).step
        if args.kernels != "torch":
            plain = argparse.Namespace(**{**vars(args), "kernels": "torch"})
            steps["tune, torch"] = Ours(plain, images, "tune").step
        if args.against:
            steps["released"] = Released(args, images, args.against).step
        eager, first = dict(steps), {}
        if args.compile:
            compiled = Ours(args, images, "tune", compiled=True)
            steps["tune, compiled"] = compiled.step
            drawing = Sampling(args, images, args.precision, compiled=True)
            steps["sample, compiled"] = drawing.step
            first = {name: processor(steps[name]) for name in steps if name not in eager}
        taken = turns(steps, args.warm_up, args.steps)
        peak, counted = peaks(args), {n: flops(s) for n, s in eager.items() if n != "released"}
        found = {"device": device.device_name(), "threads": torch.get_num_threads()}
        found |= {key: vars(args)[key] for key in ("network", "batch", "precision", "kernels")}
        found["steps"] = {
            name: {
                "seconds": statistics.median(seconds),
                "quartiles": np.quantile(seconds, QUARTILES).tolist(),
                "images_per_second": args.batch / statistics.median(seconds),
                "processor_seconds": statistics.median(processor),
            }
            for name, (seconds, processor) in taken.items()
        }
        if device.current().type == "cuda":
            for name, step in steps.items():
                found["steps"][name]["memory_mib"] = memory_of(step)
        for name, count in counted.items():
            row = found["steps"][name]
            row["flops"] = count
            row["share_of_peak"] = {k: count / row["seconds"] / v for k, v in peak.items()}
        found["peak_flops_per_second"] = peak
        found["parts_seconds"] = split(ours["tune"], args.steps)
        found["peak_memory_mib"] = memory()
        if args.compile:
            found["first_call_processor_seconds"] = first
            if args.precision == "fp32":
                found["gradients_apart"] = gradients_apart(ours["tune"], compiled)
            half = "" if args.precision == "fp32" else f", {args.precision}"
            for name, other in (("tune", "tune"), ("sample", f"sample{half}")):
                for index, what in enumerate(("seconds", "processor_seconds")):
                    ratio = taken[other][index] / taken[f"{name}, compiled"][index]
                    key = f"eager_over_compiled_in_{what}"
                    found.setdefault(key, {})[name] = np.quantile(ratio, QUARTILES).tolist()
        if args.against:
            for index, what in enumerate(("seconds", "processor_seconds")):
                ratio = taken["released"][index] / taken["tune"][index]
                found[f"released_over_ours_in_{what}"] = np.quantile(ratio, QUARTILES).tolist()
            found["losses_apart"] = {
                kind: losses_apart(args, images, kind) for kind in {"torch", args.kernels}
            }
        return found


def parser():
    found = options(__doc__)
    found.add_argument("--warm-up", type=whole(0, 10**6), default=2)
    found.add_argument("--threads", type=whole(1, 1024))
    found.add_argument(
        "--matrix", type=whole(1, 10**5), default=2048, help="rows of the product, its columns"
    )
    found.add_argument("--against", type=folder, help="a checkout of locuslab/ect, left as it is")
    found.add_argument("--released", choices=("fp32", "fp16"), default="fp32")
    found.add_argument("--compile", action="store_true", help="time the compiled network too")
    found.add_argument("--out", type=new_file, help="a JSON file")
    return found


def main():
    args = parsed(parser())
    if args.against and not (args.against / "training" / "loss.py").is_file():
        found = f"--against: found {args.against}, without training/loss.py"
        parser().error(f"{found}; allowed: a checkout of locuslab/ect")
    if args.threads:
        torch.set_num_threads(args.threads)
    with contextlib.redirect_stdout(sys.stderr):  # the released code prints
        found = measure(args)
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
