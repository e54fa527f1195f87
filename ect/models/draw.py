"""Images from a model, a batch at a time: each depends on its seed alone."""

import math
import os

import numpy as np
import torch

from ect import plugins, sampler
from ect.data.batches import decode
from ect.flowmap import FlowMap
from ect.models import build
from ect.runtime import device
from ect.runtime.seeds import generator_of
from ect.runtime.text import shown
from ect.runtime.versions import setting

MOST = 10**7  # images, as for the verb `sample`


def most_images(shape):
    """How many images (C, H, W) an array may hold: twice their bytes fit into this machine's
    memory, once in batches and once joined."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(MOST, memory // (2 * math.prod(shape))))


def draw(f, process, about, settings):
    """uint8 images (N, H, W, C) from the seeds `seed`, `seed` + 1, ..., as `stream` draws them."""
    return np.concatenate(list(stream(f, process, about, settings)))


def stream(f, process, about, settings, bar=False):
    """The images of `draw` a batch at a time.

    `settings` holds kind, options, images, batch and seed; for a network with classes `labels`;
    if not fp32, `precision`, as in `device.precision`; and `compile`, if true. Raises
    `FloatingPointError` where an image is not finite, `ValueError` for a model of latents.
    """
    if "latents" in about:
        raise ValueError(
            "model: found one of a VAE's latents; allowed: one of pixels, to draw images"
        )
    if settings["images"] < 1:
        raise ValueError(f"images is {settings['images']}; allowed: >= 1")
    if settings["kind"] == "flow_map" and not isinstance(f, FlowMap):
        raise ValueError(
            "kind is 'flow_map', and the model's network is told one time; allowed: a model whose"
            " network has span"
        )
    if setting(settings, "compile"):
        f = build.compiled(f)
    if solves(settings["kind"]):
        f = f.denoiser()
    sample = plugins.with_plugins(sampler.SAMPLERS, "sampler", settings)[settings["kind"]]
    options = lowest(settings["kind"], about) | settings["options"]
    first, last, batch = settings["seed"], settings["seed"] + settings["images"], settings["batch"]
    precision = setting(settings, "precision")
    starts = range(first, last, batch)
    if bar:
        from tqdm import tqdm

        starts = tqdm(starts, disable=None, unit="batch")
    for start in starts:
        seeds = range(start, min(start + batch, last))
        eps = noise(seeds, options, about["shape"])
        labels = labels_of(seeds, about, settings.get("labels"))
        conditioned = f if labels is None else f.conditioned_on(device.to_device(labels))
        with torch.no_grad(), device.deterministic(), device.precision(precision):
            x = sample(conditioned, process, eps, **options)
        yield decode(x, about, precision)


def noise(seeds, options, shape):
    """What a sampler with these options is given as `eps`; slice by slice where `churn` asks for as
    many as steps."""
    if options.get("churn"):
        return map(device.to_device, sampler.fresh(seeds, shape))
    return device.to_device(sampler.noise(seeds, 1 + len(options.get("times", ())), shape))


def lowest(kind, about):
    """The option `s_min` of a built-in solver, for a model that says down to which noise level its
    network was trained; {} for any other."""
    return {"s_min": about["s_min"]} if solves(kind) and "s_min" in about else {}


def solves(kind):
    """Whether a sampler is a built-in solver of the ODE."""
    return kind in sampler.SAMPLERS and kind not in ("multistep", "flow_map")


def labels_of(seeds, about, given=None):
    """A class label for each image, a function of its seed alone: uniform over the classes that the
    model was trained on, or the given ones in turn; None for a network without classes."""
    classes = setting(about["network"], "classes")
    trained = about.get("trained_classes") or range(classes)
    for label in given or ():
        if label not in trained:
            raise ValueError(f"labels has {label}; allowed: {_trained(about, classes)}")
    if not classes:
        return None
    if given:
        return torch.tensor([given[seed % len(given)] for seed in seeds])
    generators = (generator_of(seed, "label") for seed in seeds)
    draws = [torch.randint(len(trained), (1,), generator=generator) for generator in generators]
    return torch.tensor([trained[draw] for draw in draws])


def _trained(about, classes):
    if not classes:
        return "none, as the model has no classes"
    if "trained_classes" in about:
        return shown(f"the classes it was trained on, {about['trained_classes']}")
    return f"0 to {classes - 1}"
