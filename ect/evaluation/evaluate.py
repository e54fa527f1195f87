"""A model's images, and their distance to the training images: the files behind every table.

Images go from the sampler to the features a batch at a time; samples.npz between them is optional.
"""

import collections
import functools
import itertools
import os
import statistics
import time
from contextlib import suppress
from pathlib import Path

from ect import plugins
from ect.data import npz
from ect.data.batches import Images
from ect.evaluation import efficientnet, features, metrics, origin, pretrained, samples, summary
from ect.evaluation.classifier import extractor as classifier_space
from ect.evaluation.sample import drawn_by_all, processes
from ect.runtime import checkpoint, distributed
from ect.runtime.record import digest, job_record
from ect.runtime.text import shown
from ect.runtime.versions import DEFAULTS, setting


def extractor(settings, classifier=None):
    """(name, extract) of the study's feature space, which may be a plugin's."""
    if settings["extractor"] == "classifier":
        if classifier is None:
            raise ValueError("extractor is 'classifier'; allowed: only with --classifier WEIGHTS")
        return classifier_space(classifier)
    added = plugins.with_plugins({}, "features", settings)
    if settings["extractor"] in added:
        return settings["extractor"], features.plugin_extractor(added[settings["extractor"]])
    if settings["extractor"] == "dinov2":
        return "dinov2", pretrained.dinov2(settings["dinov2_path"])
    if settings["extractor"] == "efficientnet":
        return efficientnet.SPACE, efficientnet.extractor()
    mode = settings["inception_mode"]
    return f"inception:{mode}", pretrained.inception(mode, settings["inception_path"])


def space_of(reference, settings, shape, classifier=None):
    """(name, extract, features (N, D) of the training images) of the study's feature space. The
    features are read from `reference`; raises `ValueError` if they are of another space, or of
    images of another shape (C, H, W) than the model's."""
    name, network = extractor(settings, classifier)
    stored, real, stored_shape = features.load(reference)
    features.require_shape("the model", shape, stored_shape, reference)
    if stored != name:
        raise ValueError(f"{reference}: features are '{stored}'; allowed: '{name}', as in settings")
    origin.require_space(reference, settings, network_file(settings, classifier))
    origin.require_training(reference)
    summary.require_several(reference, real)
    return name, network, real


def network_file(settings, classifier=None):
    """[the file of the feature space's network]; empty for a plugin's."""
    if settings["extractor"] == "inception":
        return [pretrained.weights_in(settings["inception_path"])]
    if settings["extractor"] == "efficientnet":
        return [efficientnet.weights_file()]
    known = {"classifier": classifier, "dinov2": settings.get("dinov2_path")}
    return [path for name, path in known.items() if name == settings["extractor"]]


def extract(settings, out, drawn=None, model=None, data=None, classifier=None):
    """Write features to `out`, and the record of the job beside it as .json. The images are those
    of a samples.npz (`drawn`), of a model while it draws them, or the training images of `data`.
    `settings` holds features, and for a model `sampling`. Several processes share the drawing."""
    started = time.monotonic()
    sources = [path for path in (drawn, model, data) if path is not None]
    if len(sources) != 1:
        raise ValueError(f"found {len(sources)} sources; allowed: one of samples, a model or data")
    if ("sampling" in settings) != (model is not None):
        found = "no sampling" if model is not None else "sampling"
        given = "--model" if model is not None else "--samples" if drawn is not None else "--data"
        raise ValueError(
            f"settings: found {found} with {given}; allowed: sampling with --model alone"
        )
    resize = {}  # of the training images; a model's are not resized
    with distributed.together():
        if drawn is not None:
            batches = npz.read(drawn)
        elif model is not None:
            batches = drawn_by_all(model, settings["sampling"])
        else:
            images = Images(data)
            batches, resize = samples.pieces(images.pixels), {"resize": images.resize}
        if not distributed.is_first():
            collections.deque(batches if model is not None else (), maxlen=0)
            return
        shape, batches = samples.shaped(batches)
        name, network = extractor(settings["features"], classifier)
        features.save(out, features.of_batches(network, batches), name, shape, **resize)
        weights = network_file(settings["features"], classifier)
        inputs = [*sources, *weights]
        record = job_record(settings, inputs, started, [Path(out)], **processes())
        checkpoint.write_json(Path(out).with_suffix(".json"), record)


def run(settings, drawn, data, out, classifier=None, reference=None, summarized=None):
    """Write metrics.json: distances of the images drawn (or, without any, of the held-out ones) to
    the training images, and the facts of the cell they belong to.

    `settings` holds features, cell and, unless they are fd and kd, the names of the metrics.
    `drawn` is a samples.npz or a file of features or, for repeats, a list of them: then each metric
    is the mean over the repeats, and `repeats` lists the values. `reference` is the file of the
    training images' features; without it they are extracted from `data`. `summarized` is the file
    of what metrics derive from `reference` alone; without it that is computed.
    """
    if summarized is not None and reference is None:
        raise ValueError("summary is given, but reference is missing; allowed: both, or neither")
    if data is None and (reference is None or drawn is None):
        raise ValueError("samples or reference is missing, and so is data; allowed: both, or data")
    space = functools.cache(lambda: extractor(settings["features"], classifier))
    real = samples.pieces(Images(data).pixels) if reference is None else reference
    where = reference or data
    name, real, shape = represented(real, space)
    if summarized is not None:
        real = summary.laid_over(real, summarized, reference)
    real = metrics.Reference.of(real)  # of all repeats
    _require_kind(settings["cell"], drawn)
    _require_origin(settings["features"], drawn, data, classifier, reference)
    if drawn is None:
        sources = [samples.pieces(Images(data, "test").pixels)]
    else:
        sources = drawn if isinstance(drawn, list) else [drawn]
        _require_others(sources)
        origin.require_repeats(sources)
        for path in sources:
            origin.require_cell(path, settings["cell"])
    results = []
    for source in sources:
        drawn_name, features_drawn, _ = represented(source, space, shape, where)
        if drawn_name != name:
            found = f"features are '{name}', not '{drawn_name}' as of the images"
            raise ValueError(f"{where}: {found}; allowed: one feature space")
        features.require_width(_name(source), features_drawn, real.features, where)
        results.append(measured(settings, features_drawn, real))
    made = features.resize_of(reference) if reference else Images(data).resize
    about = {} if made == DEFAULTS["resize"] else {"resize": made}
    about |= {"features": name, "cell": settings["cell"]}
    checkpoint.write_json(out, mean(results) | about)


def _require_kind(cell, drawn):
    """Raise `ValueError` for a floor of drawn images, or a model's cell of held-out ones: what
    metrics.json says would be another thing than what was measured."""
    if drawn is not None and cell.get("floor"):
        found, allowed = "a floor with --samples", "a floor without them, of held-out images"
    elif drawn is None and cell.get("sampler"):
        found = f"the sampler {shown(cell['sampler'], 60)} without --samples"
        allowed = "a model's cell with its samples, or a floor"
    else:
        return
    raise ValueError(f"settings: cell: found {found}; allowed: {allowed}")


def _require_origin(space, drawn, data, classifier, reference):
    """Raise `ValueError` unless stored features are of this feature space and its network, and the
    reference of the images in `data`."""
    weights = [path for path in _network_there(space, classifier) if path is not None]
    for path in [*_stored(drawn), *_stored(reference)]:
        origin.require_space(path, space, weights)
    if reference is not None and data is not None:
        origin.require_made_from(reference, data, "images")
    for path in _stored(drawn) if reference is not None and not weights else ():
        origin.require_one_network(path, reference)
    for path in _stored(reference):
        origin.require_training(path)
    for path in _stored(drawn):
        origin.require_drawn(path)


def _network_there(space, classifier):
    """As `network_file`, or empty where stored features need none and none is there."""
    with suppress(ValueError, OSError):
        return network_file(space, classifier)
    return []


def _stored(paths):
    """Those of the paths that are files of features."""
    given = paths if isinstance(paths, list) else [paths]
    return [path for path in given if path is not None and Path(path).suffix == ".safetensors"]


def _require_others(paths):
    """Raise `ValueError` if a file, or a copy of it, is among the repeats twice."""
    digests = {path: digest(path) for path in paths if len(paths) > 1 and os.path.exists(path)}
    for one, other in itertools.combinations(paths, 2):
        if digests.get(one) is not None and digests[one] == digests.get(other):
            raise ValueError(f"{other}: found twice among the repeats; allowed: each file once")


def _name(source):
    """What a message calls the images that are measured."""
    return source if isinstance(source, (str, Path)) else "the held-out images"


def represented(source, space, wanted=None, where=None):
    """(name of the feature space, features (N, D) in float64, (C, H, W) of the images) of stored
    features, of a samples.npz, or of uint8 images in batches (n, H, W, C); `space()` returns
    (name, extract). Raises `ValueError` if the images' shape is known and not the one `wanted`,
    that of the images of `where`."""
    if isinstance(source, (str, Path)) and Path(source).suffix == ".safetensors":
        name, found, shape = features.load(source)
        features.require_shape(source, shape, wanted, where)
        return name, found, shape
    stored = isinstance(source, (str, Path))
    shape, batches = samples.shaped(npz.read(source) if stored else source)
    features.require_shape(source, shape, wanted, where)
    name, network = space()
    return name, features.of_batches(network, batches).double().numpy(), shape


def mean(results):
    """The metrics of one set as they are; of several sets each metric's mean, and `repeats`,
    {metric: values}. Raises `ValueError` if the sets have different sizes."""
    sizes = [one["images"] for one in results]
    if len(set(sizes)) > 1:
        raise ValueError(f"the repeats have {sizes} images; allowed: the same number in each")
    if len(results) == 1:
        return results[0]
    counts = ("images", "reference_images")
    values = {name: [one[name] for one in results] for name in results[0] if name not in counts}
    means = {name: statistics.fmean(each) for name, each in values.items()}
    return {**results[0], **means, "repeats": values}


def measured(settings, drawn, reference):
    """{metric: value} of features against a `metrics.Reference`, and the sizes of both sets."""
    names, space = setting(settings, "metrics"), settings["features"]
    probabilities = None
    if "inception_score" in names:
        probabilities = pretrained.class_probabilities(drawn, space["inception_path"])
    return metrics.measures(names, drawn, reference, space["kd_subsets"], probabilities)
