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
SAMPLERS = ("multistep", "euler", "heun", "dpm_solver")
sys.path.insert(0, str(FOLDER))  # for ect/, also where Python ignores a script's own folder


def options_of(sampler, steps, times, known):
    """The options of ect/sampler.py's function; `known` are times by the number of steps. Raises
    `ValueError`."""
    if sampler != "multistep":
        if times is not None:
            raise ValueError(f"--times: found {times} with {sampler}; allowed: --steps alone")
        return {"steps": steps or 18}
    if times is None:
        if (steps or 1) not in known:
            raise ValueError(f"--steps: found {steps} without --times; allowed: {list(known)}")
        return {"times": list(known[steps or 1])}
    if steps is not None and steps != len(times) + 1:
        raise ValueError(f"--steps: found {steps} with {len(times)} times; allowed: one step more")
    return {"times": times}


def draw(args):
    """uint8 images (N, H, W, C)."""
    from ect.models import build, draw
    from ect.runtime import checkpoint

    options = options_of(args.sampler, args.steps, args.times, draw.TIMES)
    about = json.loads((FOLDER / "config.json").read_text())
    weights, _ = checkpoint.load(FOLDER / "model.safetensors")
    f, process, _ = build.from_description(weights, about)
    settings = {
        "kind": args.sampler, "options": options, "images": args.n, "batch": args.batch,
        "seed": args.seed, "labels": args.labels,
    }  # fmt: skip
    return draw.draw(f, process, about, settings)


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
    if len(text) > 7 or int(text) < 1:  # far more images or steps than anyone waits for
        raise ValueError
    return int(text)


def level(text):
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def main():
    top = argparse.ArgumentParser(description="Draw images from the model beside this script.")
    top.add_argument("--n", type=positive, default=16, help="number of images (default 16)")
    top.add_argument("--steps", type=positive, help="evaluations (default 1; of a solver 18)")
    top.add_argument("--times", type=level, nargs="+", help="noise levels after the first step")
    top.add_argument("--sampler", choices=SAMPLERS, default="multistep")
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
