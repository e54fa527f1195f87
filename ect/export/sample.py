"""Draws images from model.safetensors: python sample.py --n 16 --steps 2 --seed 0 --out samples.png

Needs torch, safetensors, numpy and pillow (and diffusers, if config.json says `unet2d`). An image
depends on its seed: the i-th of a run is that of `--seed` + i.
"""

import argparse
import json
import math
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))  # for ect/, also where Python ignores a script's own folder

TIMES = {1: [], 2: [0.5]}  # noise levels s after the first, by the number of steps


def options_of(sampler, steps, times):
    """The options of ect/sampler.py's function; raises `ValueError`."""
    if sampler != "multistep":
        if times is not None:
            raise ValueError(f"--times: found {times} with {sampler}; allowed: --steps alone")
        return {"steps": steps or 18}
    if times is None:
        if (steps or 1) not in TIMES:
            raise ValueError(f"--steps: found {steps} without --times; allowed: {list(TIMES)}")
        return {"times": TIMES[steps or 1]}
    if steps is not None and steps != len(times) + 1:
        raise ValueError(f"--steps: found {steps} with {len(times)} times; allowed: one step more")
    return {"times": times}


def labels_of(seeds, classes, given):
    """A class label for each image, a function of its seed alone; None without classes."""
    import torch

    from ect.data import generator_of

    if given and max(given) >= classes:
        allowed = f"0 to {classes - 1}" if classes else "none, as the model has no classes"
        raise ValueError(f"--labels: found {max(given)}; allowed: {allowed}")
    if given:
        return torch.tensor([given[seed % len(given)] for seed in seeds])
    draws = [torch.randint(classes, (1,), generator=generator_of(s, "label")) for s in seeds]
    return torch.cat(draws)


def draw(args):
    """uint8 images (N, H, W, C)."""
    options = options_of(args.sampler, args.steps, args.times)
    import numpy as np
    import torch

    from ect import checkpoint, experiment, machine, sampler
    from ect.data import decode

    about = json.loads((FOLDER / "config.json").read_text())
    weights, _ = checkpoint.load(FOLDER / "model.safetensors")
    f, process, _ = experiment.restore(weights, about)
    classes, place, parts = about["network"].get("classes", 0), machine.device(), []
    for start in range(args.seed, args.seed + args.n, args.batch):
        seeds = range(start, min(start + args.batch, args.seed + args.n))
        eps = sampler.noise(seeds, 1 + len(options.get("times", ())), about["shape"]).to(place)
        told = f
        if classes or args.labels:
            told = f.given(labels_of(seeds, classes, args.labels).to(place))
        with torch.no_grad():
            x = sampler.SAMPLERS[args.sampler](told, process, eps, **options)
        parts.append(decode(x, about))
    return np.concatenate(parts)


def save(images, path):
    """Write the images as one picture: rows of ceil(sqrt(N)), the rest of the last row black."""
    import numpy as np
    from PIL import Image

    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(path)


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def main():
    top = argparse.ArgumentParser(description="Draw images from the model beside this script.")
    top.add_argument("--n", type=positive, default=16, help="number of images (default 16)")
    top.add_argument("--steps", type=positive, help="evaluations (default 1; of a solver 18)")
    top.add_argument("--times", type=float, nargs="+", help="noise levels after the first step")
    top.add_argument("--sampler", choices=("multistep", "euler", "heun"), default="multistep")
    top.add_argument("--labels", type=int, nargs="+", help="classes to cycle through")
    top.add_argument("--batch", type=positive, default=250, help="images at once (default 250)")
    top.add_argument("--seed", type=int, default=0, help="of the first image (default 0)")
    top.add_argument("--out", default="samples.png")
    args = top.parse_args()
    try:
        save(draw(args), args.out)
    except (ValueError, OSError) as error:
        sys.exit(f"sample.py: {error}")


if __name__ == "__main__":
    main()
