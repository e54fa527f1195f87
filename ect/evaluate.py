"""A model's images, and their distance to the training images: the files behind every table."""

import statistics
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ect import checkpoint, experiment, features, machine, metrics, plugins, pretrained, sampler
from ect.data import Images, decode, generator_of, save_arrays


def draw(f, process, about, settings, bar=False):
    """uint8 images (N, H, W, C) from the seeds `seed`, `seed` + 1, ..., in batches.

    `settings` holds kind, options, images, batch and seed, and for a network with classes `labels`.
    """
    if settings["images"] < 1:
        raise ValueError(f"images is {settings['images']}; allowed: >= 1")
    sample = plugins.added(sampler.SAMPLERS, "sampler", settings)[settings["kind"]]
    options = settings["options"]
    count = 1 + len(options.get("times", ()))
    first, last, batch = settings["seed"], settings["seed"] + settings["images"], settings["batch"]
    place, parts = machine.device(), []
    for start in tqdm(range(first, last, batch), disable=None if bar else True, unit="batch"):
        seeds = range(start, min(start + batch, last))
        eps = sampler.noise(seeds, count, about["shape"]).to(place)
        labels = labels_of(seeds, about["network"].get("classes", 0), settings.get("labels"))
        told = f if labels is None else f.given(labels.to(place))
        with torch.no_grad():
            parts.append(decode(sample(told, process, eps, **options), about))
    return np.concatenate(parts)


def labels_of(seeds, classes, given=None):
    """A class label for each image, a function of its seed alone: uniform, or the given ones in
    turn; None for a network without classes."""
    if not classes:
        return None
    if given and max(given) >= classes:
        raise ValueError(f"labels has {max(given)}; allowed: 0 to {classes - 1}")
    if given:
        return torch.tensor([given[seed % len(given)] for seed in seeds])
    draws = [torch.randint(classes, (1,), generator=generator_of(seed, "label")) for seed in seeds]
    return torch.cat(draws)


def sample(settings, model, out):
    """Write samples.npz (arr_0: uint8 (N, H, W, C), the form of OpenAI's evaluator), run.json."""
    started, out = time.monotonic(), Path(out)
    f, process, about = experiment.load_model(model)
    images = draw(f, process, about, settings, bar=True)
    save_arrays(out / "samples.npz", images)
    record = machine.record(settings, [model], started, [out / "samples.npz"])
    checkpoint.write_json(out / "run.json", record)


def extractor(settings, classifier=None):
    """(name, extract) of the study's feature space, which may be a plugin's."""
    if settings["extractor"] == "classifier":
        if classifier is None:
            raise ValueError("extractor is 'classifier'; allowed: with --classifier, its weights")
        return "classifier", features.classifier(classifier)
    own = plugins.added({}, "features", settings)
    if settings["extractor"] in own:
        return settings["extractor"], features.own(own[settings["extractor"]])
    mode = settings["inception_mode"]
    return f"inception:{mode}", pretrained.inception(mode, settings["inception_path"])


def evaluate(settings, samples, data, out, classifier=None):
    """Write metrics.json: distances of the samples (or, without any, of the held-out images) to the
    training images, and the facts of the cell they belong to.

    `settings` holds features, cell, and, where they are not fd and kd, the names of the metrics.
    `samples` are one file or, for repeats, several: then each metric is the mean of theirs, and
    `repeats` lists them.
    """
    name, extract = extractor(settings["features"], classifier)
    reference = features.of_images(extract, Images(data).pixels)
    if samples is None:
        sets = [Images(data, "test").pixels]
    else:
        paths = samples if isinstance(samples, list) else [samples]
        sets = (np.load(path)["arr_0"] for path in paths)
    found = [measured(settings, features.of_images(extract, pixels), reference) for pixels in sets]
    checkpoint.write_json(out, mean(found) | {"features": name, "cell": settings["cell"]})


def mean(found):
    """One set's metrics as they are; of several sets each metric's mean, and `repeats`, {metric:
    values}. Raises `ValueError` where the sets have different sizes."""
    sizes = [one["images"] for one in found]
    if len(set(sizes)) > 1:
        raise ValueError(f"the repeats have {sizes} images; allowed: as many in each")
    if len(found) == 1:
        return found[0]
    counts = ("images", "reference_images")
    values = {name: [one[name] for one in found] for name in found[0] if name not in counts}
    means = {name: statistics.fmean(each) for name, each in values.items()}
    return {**found[0], **means, "repeats": values}


def measured(settings, found, reference):
    """{metric: value} of features against the reference's, and the sizes of both sets."""
    names, space = settings.get("metrics", ("fd", "kd")), settings["features"]
    probabilities = None
    if "inception_score" in names:
        probabilities = pretrained.class_probabilities(found, space["inception_path"])
    return metrics.measures(names, found, reference, space["kd_subsets"], probabilities)
