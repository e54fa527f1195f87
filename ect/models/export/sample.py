"""Draws images from model.safetensors: python sample.py --n 16 --steps 2 --seed 0 --out samples.png

Needs torch, safetensors, numpy and pillow (and diffusers, if config.json says `unet2d`). An image
depends on its seed: the i-th of a run is that of `--seed` + i. Without `--times`, the noise levels
of `--steps` are those of the model's study (sampling.json), else ECT's for CIFAR-10: it says which.
"""

import argparse
import math
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SAMPLERS = ("multistep", "flow_map", "euler", "heun", "dpm_solver")
sys.path.insert(0, str(FOLDER))  # for ect/, also where Python ignores a script's own folder


def options_of(sampler, steps, times, samplers):
    """(options of ect/sampler.py's function, words); `samplers` are those of the model's study.
    Raises `ValueError`."""
    from ect.models.steps import chosen, falling

    if sampler not in ("multistep", "flow_map"):
        if times is not None:
            raise ValueError(f"--times: found {times} with {sampler}; allowed: --steps alone")
        return {"steps": steps or 18}, f"{sampler} with {steps or 18} steps"
    if times is None:
        options, words = chosen(samplers, steps or 1)[:2]
        return (options if sampler == "multistep" else {"times": options["times"]}), words
    if not falling(times):
        allowed = "falling noise levels from below 80 to 1e-6"
        raise ValueError(f"--times: found {times}; allowed: {allowed}")
    if steps is not None and steps != len(times) + 1:
        raise ValueError(f"--steps: found {steps} with {len(times)} times; allowed: one step more")
    return {"times": times}, f"{1 + len(times)} steps, at the times given"


def draw(args):
    """uint8 images (N, H, W, C)."""
    from ect.models import build, draw, steps
    from ect.runtime import checkpoint

    samplers = steps.read(FOLDER / steps.CARRIED)
    options, words = options_of(args.sampler, args.steps, args.times, samplers)
    print(words, file=sys.stderr)
    about = checkpoint.read_json(FOLDER / "config.json")
    most = draw.most_images(about["shape"])
    if args.n > most:
        raise ValueError(f"--n: found {args.n}; allowed: at most {most:,} in this machine's memory")
    weights, _ = checkpoint.load(FOLDER / "model.safetensors")
    f, process, _ = build.from_description(weights, about, "config.json")
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
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(path)


def require_savable(path):
    """Raise `ValueError` unless a picture can be saved there: known before the images are drawn."""
    from PIL import Image

    from ect.runtime import checkpoint

    checkpoint.require_regular(path)
    Image.init()
    ending = Path(path).suffix.lower()
    if Image.EXTENSION.get(ending) not in Image.SAVE:
        raise ValueError(f"--out: found {path}; allowed: a name that ends in .png or the like")


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
        require_savable(args.out)
        save(draw(args), args.out)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"sample.py: {error}")


if __name__ == "__main__":
    main()
