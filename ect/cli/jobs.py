"""The verbs that compute: data, training, sampling, measuring."""

import sys
from collections.abc import Callable

from ect import registry
from ect.cli.arguments import amount, count, one, settings_of
from ect.runtime import lease


def prepare(args):
    from ect.data import prepare

    record = prepare.run(args.settings, args.out, args.threads)
    ignored = [f"{n} x {suffix}" for suffix, n in sorted(record.get("ignored", {}).items())]
    print(
        f"{args.out}: {record['images']['train']} images to train with, {record['images']['test']}"
        f" to test with, {len(record['skipped'])} skipped"
        f"; other files passed over: {', '.join(ignored) or 'none'}",
        file=sys.stderr,
    )


def train_classifier(args):
    lease.start_over(args.gpus)
    from ect.evaluation import classifier

    classifier.run(args.settings, args.data, args.out)


def import_model(args):
    from ect.models import importers
    from ect.runtime import checkpoint

    weights, about = importers.read(args.format, args.source, args.about, args.data)
    checkpoint.save(args.out, weights, **about)


def train(args):
    lease.start_over(args.gpus, args.nodes)
    from ect.training import train

    train.run(
        args.settings,
        args.data,
        args.out,
        resume=args.resume,
        init=args.init,
        save_seconds=args.save_seconds,
        max_minutes=args.max_minutes,
        hold=args.hold,
    )


def perfect_loss(args):
    from ect.training import perfect

    perfect.run(args.settings, args.data, args.out, init=args.init)


def sample(args):
    lease.start_over(args.gpus, args.nodes)
    from ect.evaluation import sample

    sample.run(args.settings, args.model, args.out)


def fetch_inception(args):
    from ect.evaluation import pretrained

    pretrained.fetch_inception(args.out)


def export_images(args):
    from ect.evaluation import samples

    samples.export(args.samples, args.folder)


def extract(args):
    lease.start_over(args.gpus, args.nodes)
    from ect.evaluation import evaluate

    evaluate.extract(
        args.settings,
        args.out,
        drawn=args.samples,
        model=args.model,
        data=args.data,
        classifier=args.classifier,
    )


def summarize(args):
    from ect.evaluation import summary

    summary.run(args.settings, args.reference, args.out)


def evaluate(args):
    lease.start_over(args.gpus)
    from ect.evaluation import evaluate

    evaluate.run(
        args.settings,
        args.samples,
        args.data,
        args.out,
        classifier=args.classifier,
        reference=args.reference,
        summarized=args.summary,
    )


def trace(args):
    lease.start_over(args.gpus)
    from ect.evaluation import trace

    trace.run(
        args.settings,
        args.init,
        args.snapshots,
        args.data,
        args.reference,
        args.out,
        classifier=args.classifier,
    )


def search_steps(args):
    lease.start_over(args.gpus)
    from ect.evaluation import search

    search.run(args.settings, args.model, args.reference, args.out, classifier=args.classifier)


def export(args):
    from ect.models import export

    export.export(args.model, args.out)


NEEDED = {"required": True}
SETTINGS = {"type": settings_of, "help": "JSON, or a run.json to repeat"}
GPUS = {
    "--gpus": {
        "type": count,
        "help": "lease this many GPUs, and train or sample on all of them",
    },
    "--nodes": {"type": count, "help": "the number of nodes of this SLURM job that have them"},
}
ONE_GPU = {"--gpus": {"type": one, "help": "lease one GPU"}}
PLUGINS = {
    "--plugins": {
        "nargs": "+",
        "default": [],
        "metavar": "FILE",
        "help": "Python files that a model of a plugin's process may run; the config's are allowed",
    },
}
CLASSIFIER = {"help": "weights of the study's own classifier, the feature space"}
TRAINING = {"required": True, "help": "features of the training images"}

VERBS: dict[Callable, tuple[str, dict]] = {
    prepare: ("write the dataset file", {"settings": SETTINGS, "--out": NEEDED}),
    train_classifier: (
        "train the classifier whose penultimate layer is the feature space",
        {"settings": SETTINGS, "--data": NEEDED, "--out": NEEDED, **ONE_GPU},
    ),
    import_model: (
        "a model from elsewhere -> model.safetensors; no code in its files is executed",
        {
            "format": {"choices": registry.FORMATS},
            "source": {
                "help": "its file; for diffusers a folder, or owner/name[@revision] on the hub"
            },
            "--about": {"type": settings_of, "help": "JSON: what a state_dict's weights mean"},
            "--data": {"help": "the dataset file whose images a state_dict's network reads"},
            "--out": NEEDED,
        },
    ),
    train: (
        "one training run: a piece of pretraining (r = 0), or tuning",
        {
            "settings": SETTINGS,
            "--data": NEEDED,
            "--resume": {"help": "state.safetensors of the previous milestone"},
            "--init": {"help": "model.safetensors to start from"},
            "--out": NEEDED,
            "--save-seconds": {
                "type": amount(0, 1e8),
                "help": "seconds between two saves of the work in progress (default: 60, or more if"
                " saving would take over 2 %% of the time)",
            },
            "--max-minutes": {
                "type": amount(0, 1e7),
                "help": "save and stop after this time, with exit code 75; run again to go on",
            },
            "--hold": {
                "action": "store_true",
                "help": "keep a hard link to the outputs until Snakemake has recorded the job: if"
                " it is killed before, it deletes them",
            },
            **PLUGINS,
            **GPUS,
        },
    ),
    perfect_loss: (
        "the loss of a perfect model along a tuning run, for Gaussian data of the same covariance",
        {
            "settings": SETTINGS,
            "--data": NEEDED,
            "--init": {"help": "the model that the run starts from, if it was imported"},
            "--out": NEEDED,
        },
    ),
    sample: (
        "sample images from a model",
        {"settings": SETTINGS, "--model": NEEDED, "--out": NEEDED, **PLUGINS, **GPUS},
    ),
    fetch_inception: ("download Inception's weights, unless they are there", {"--out": NEEDED}),
    export_images: (
        "the images of a samples.npz as PNG files",
        {"samples": {}, "folder": {}},
    ),
    extract: (
        "features of samples, of images that are sampled and not stored, or of the training images",
        {
            "settings": SETTINGS,
            "--samples": {"help": "samples.npz"},
            "--model": {"help": "model.safetensors; its images are not stored"},
            "--data": {"help": "the dataset file, instead of --samples and --model"},
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
            **PLUGINS,
            **GPUS,
        },
    ),
    summarize: (
        "what metrics need of the training images' features, once for all evaluations",
        {"settings": SETTINGS, "--reference": TRAINING, "--out": NEEDED},
    ),
    evaluate: (
        "Frechet and kernel distance of samples to the training images",
        {
            "settings": SETTINGS,
            "--samples": {
                "nargs": "+",
                "help": "samples.npz or its features, of each repeat; default: held-out images",
            },
            "--data": {"help": "the dataset file; needed without --samples or without --reference"},
            "--reference": {"help": "features of the training images"},
            "--summary": {"help": "what `summarize` wrote of them; without it, that is computed"},
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
            **ONE_GPU,
        },
    ),
    trace: (
        "measure the snapshots of a tuning run: distances, residuals, end-to-end errors",
        {
            "settings": SETTINGS,
            "--init": {"required": True, "help": "the model that the tuning run started from"},
            "--snapshots": NEEDED,
            "--data": NEEDED,
            "--reference": TRAINING,
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
            **PLUGINS,
            **ONE_GPU,
        },
    ),
    search_steps: (
        "choose the intermediate times of multistep sampling, and test them on other seeds",
        {
            "settings": SETTINGS,
            "--model": NEEDED,
            "--reference": TRAINING,
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
            **PLUGINS,
            **ONE_GPU,
        },
    ),
    export: (
        "a model as a folder to share: weights, card, a script that samples without this package",
        {"model": {"help": "model.safetensors"}, "--out": {**NEEDED, "help": "a new folder"}},
    ),
}


def require_settings(args):
    """Raise `ValueError` unless the settings of a verb are such as a config gives it, whoever wrote
    them; those of `draw` its figure checks."""
    if "settings" in args and args.function.__name__ != "draw":
        from ect.config import verbs

        verbs.require(args.function.__name__, args.settings)
