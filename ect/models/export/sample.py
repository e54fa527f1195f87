"""Draws images from model.safetensors: python sample.py --n 16 --steps 2 --seed 0 --out samples.png

Needs torch, safetensors, numpy and pillow (and diffusers, if config.json says `unet2d`). An image
depends on its seed: the i-th of a run is that of `--seed` + i. Without `--times`, the noise levels
of `--steps` are those of the model's study (sampling.json), else ECT's for CIFAR-10: it says which.
"""

import math
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MOST = 10**7  # images
# Formats that keep a picture as it is, or nearly; with the largest side where one has a limit.
SIDES = {"PNG": None, "TIFF": None, "BMP": None, "PPM": None, "JPEG": 65_500, "WEBP": 16_383}
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
        try:
            options, words = chosen(samplers, steps or 1)[:2]
        except ValueError as error:
            raise ValueError(f"--{error}") from None
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
    about = checkpoint.read_json(FOLDER / "config.json")
    weights, _ = checkpoint.load(FOLDER / "model.safetensors")
    f, process, _ = build.from_description(weights, about, FOLDER / "config.json")
    require_fit(args, about)
    print(words, file=sys.stderr)
    settings = {
        "kind": args.sampler, "options": options, "images": args.n, "batch": args.batch,
        "seed": args.seed, "labels": args.labels,
    }  # fmt: skip
    return draw.draw(f, process, about, settings)


def require_fit(args, about):
    """Raise `ValueError` unless a model with this description can draw what is asked for."""
    from ect.models import draw
    from ect.runtime.versions import setting

    most = draw.most_images(about["shape"])
    if args.n > most:
        raise ValueError(f"--n: found {args.n}; allowed: at most {most:,} in this machine's memory")
    if args.sampler == "flow_map" and not setting(about["network"], "span"):
        others = ", ".join(name for name in SAMPLERS if name != "flow_map")
        raise ValueError(f"--sampler: found flow_map, of two-time models; allowed: {others}")
    side = math.ceil(math.sqrt(args.n)) * max(about["shape"][1:])
    if (most := SIDES[format_of(args.out)]) is not None and side > most:
        found = f"found {args.out} for a picture of {side} pixels a side"
        raise ValueError(f"--out: {found}; allowed: at most {most}, or a name that ends in .png")
    try:
        draw.labels_of((), about, args.labels)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


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

    Image.init()
    if format_of(path) not in SIDES.keys() & Image.SAVE.keys():
        allowed = "a name that ends in .png, .tif, .bmp, .ppm, .jpg or .webp"
        raise ValueError(f"--out: found {path}; allowed: {allowed}")


def format_of(path):
    """The name of a picture's format; None where it is none of Pillow's."""
    from PIL import Image

    return Image.EXTENSION.get(path.suffix.lower())


def parser():
    """The script's options."""
    from ect.runtime.options import Parser, amount, new_file, whole

    top = Parser(description="Draw images from the model beside this script.")
    top.add_argument("--n", type=whole(1, MOST), default=16, help="number of images (default 16)")
    top.add_argument("--steps", type=whole(1, 10_000), help="evaluations (default 1; solver 18)")
    top.add_argument("--times", type=amount(1e-6, 80), nargs="+", help="noise levels after s = 80")
    top.add_argument("--sampler", choices=SAMPLERS, default="multistep")
    top.add_argument("--labels", type=whole(0, 10**6), nargs="+", help="classes to cycle through")
    top.add_argument("--batch", type=whole(1, MOST), default=250, help="at once (default 250)")
    top.add_argument("--seed", type=whole(0, 10**18), default=0, help="of image 0 (default 0)")
    top.add_argument("--out", type=new_file, default="samples.png", help="a picture")
    return top


def main():
    from ect.runtime.options import errors_as_lines, require_here

    with errors_as_lines(__file__):
        require_here()
        args = parser().parse_args()
        require_savable(args.out)
        save(draw(args), args.out)


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(f"sample.py: {error}; allowed: what README.md names, and all of ect/ beside it")
