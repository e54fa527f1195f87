"""A model's images, and their distance to the training images: the files behind every table.

Images go from the sampler to the features a batch at a time; samples.npz between them is optional.
"""

import collections
import functools
import statistics
import time
from pathlib import Path

from ect import (
    checkpoint,
    drawing,
    experiment,
    features,
    machine,
    metrics,
    parallel,
    plugins,
    pretrained,
    samples,
)
from ect.classifier import extractor as classifier_space
from ect.data import Images


def sample(settings, model, out):
    """Write samples.npz (arr_0: uint8 (N, H, W, C), the form of OpenAI's evaluator), run.json.
    Several processes share the drawing, and the file has the bytes of one."""
    started, out = time.monotonic(), Path(out)
    with parallel.together():
        images = drawn_by_all(model, settings)
        if not parallel.is_first():
            collections.deque(images, maxlen=0)  # draw, for the first to write
            return
        samples.write(out / "samples.npz", settings["images"], images)
        record = machine.record(settings, [model], started, [out / "samples.npz"], **_processes())
        checkpoint.write_json(out / "run.json", record)


def drawn_by_all(model, settings):
    """The images of `drawing.stream` in the first process, drawn by all: whole batches, since an
    image in another batch may be rounded otherwise."""
    f, process, about = experiment.load_model(model)
    if parallel.world() == 1:
        return drawing.stream(f, process, about, settings, bar=True)
    first, batch = settings["seed"], settings["batch"]
    last = first + settings["images"]

    def draw(seeds):
        some = settings | {"seed": seeds[0], "images": len(seeds)}
        return next(drawing.stream(f, process, about, some))

    parts = [range(start, min(start + batch, last)) for start in range(first, last, batch)]
    channels, height, width = about["shape"]
    return parallel.in_turn(parts, draw, (height, width, channels))


def _processes():
    """What a record says of several processes."""
    return {"processes": parallel.world()} if parallel.world() > 1 else {}


def extractor(settings, classifier=None):
    """(name, extract) of the study's feature space, which may be a plugin's."""
    if settings["extractor"] == "classifier":
        if classifier is None:
            raise ValueError("extractor is 'classifier'; allowed: with --classifier, its weights")
        return classifier_space(classifier)
    own = plugins.added({}, "features", settings)
    if settings["extractor"] in own:
        return settings["extractor"], features.own(own[settings["extractor"]])
    if settings["extractor"] == "dinov2":
        return "dinov2", pretrained.dinov2(settings["dinov2_path"])
    mode = settings["inception_mode"]
    return f"inception:{mode}", pretrained.inception(mode, settings["inception_path"])


def space_of(reference, settings, classifier=None):
    """(name, extract, features (N, D) of the training images) of the study's feature space, whose
    training images' features are stored in `reference`; raises `ValueError` where those are of
    another space."""
    name, network = extractor(settings, classifier)
    own, real = features.load(reference)
    if own != name:
        raise ValueError(f"{reference}: features are '{own}'; allowed: '{name}', the settings' own")
    return name, network, real


def network_file(settings, classifier=None):
    """The file of the feature space's network, in a list; none of a plugin's."""
    if settings["extractor"] == "inception":
        return [pretrained.weights_in(settings["inception_path"])]
    known = {"classifier": classifier, "dinov2": settings.get("dinov2_path")}
    return [path for name, path in known.items() if name == settings["extractor"]]


def extract(settings, out, drawn=None, model=None, data=None, classifier=None):
    """Write the features of a samples.npz, `drawn`; of the images of a model, as it draws them; or
    of the training images; and beside them, as .json, the record of the job. `settings` holds
    features, and for a model the sampler's `sampling`. Several processes share the drawing."""
    started = time.monotonic()
    given = [path for path in (drawn, model, data) if path is not None]
    if len(given) != 1:
        raise ValueError(f"found {len(given)} sources; allowed: one of samples, a model or data")
    with parallel.together():
        if drawn is not None:
            batches = samples.read(drawn)
        elif model is not None:
            batches = drawn_by_all(model, settings["sampling"])
        else:
            batches = samples.pieces(Images(data).pixels)
        if not parallel.is_first():
            collections.deque(batches if model is not None else (), maxlen=0)
            return
        name, network = extractor(settings["features"], classifier)
        features.save(out, features.of_batches(network, batches), name)
        weights = network_file(settings["features"], classifier)
        inputs = [*given, *weights]
        record = machine.record(settings, inputs, started, [Path(out)], **_processes())
        checkpoint.write_json(Path(out).with_suffix(".json"), record)


def evaluate(settings, drawn, data, out, classifier=None, reference=None):
    """Write metrics.json: distances of the images drawn (or, without any, of the held-out ones) to
    the training images, and the facts of the cell they belong to.

    `settings` holds features, cell, and, where they are not fd and kd, the names of the metrics.
    `drawn` is a samples.npz or the file of its features or, for repeats, several: then each metric
    is the mean of theirs, and `repeats` lists them. `reference` is the file of the training images'
    features; without it they are extracted from `data`.
    """
    if data is None and (reference is None or drawn is None):
        raise ValueError("samples or reference is missing; allowed: without it, with data")
    space = functools.cache(lambda: extractor(settings["features"], classifier))
    real = samples.pieces(Images(data).pixels) if reference is None else reference
    name, real = represented(real, space)
    if drawn is None:
        sources = [samples.pieces(Images(data, "test").pixels)]
    else:
        sources = drawn if isinstance(drawn, list) else [drawn]
    found = []
    for source in sources:
        own, features_drawn = represented(source, space)
        if own != name:
            where = reference or data
            raise ValueError(f"{where}: features are '{name}', those of the images are '{own}'")
        found.append(measured(settings, features_drawn, real))
    checkpoint.write_json(out, mean(found) | {"features": name, "cell": settings["cell"]})


def represented(source, space):
    """(name of the feature space, features (N, D) in float64) of stored features, of a samples.npz,
    or of uint8 images in batches (n, H, W, C); `space()` is an `extractor`."""
    batches = source
    if isinstance(source, (str, Path)):
        if Path(source).suffix == ".safetensors":
            return features.load(source)
        batches = samples.read(source)
    name, network = space()
    return name, features.of_batches(network, batches).double().numpy()


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
