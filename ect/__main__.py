"""The verbs: `python -m ect VERB ...`. Files in, files out; settings as JSON or from a run.json.

torch and pandas are imported by the verb that needs them, so that help and errors come at once.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext

from ect import crash, given, lease, looking, progress, registry, reporting
from ect.given import settings_of


def prepare(args):
    from ect import data

    record = data.prepare(args.settings, args.out, args.threads)
    ignored = [f"{n} x {suffix}" for suffix, n in sorted(record.get("ignored", {}).items())]
    print(
        f"{args.out}: {record['images']['train']} images to train with, {record['images']['test']}"
        f" to test with, {len(record['skipped'])} skipped"
        f"; other files passed over: {', '.join(ignored) or 'none'}",
        file=sys.stderr,
    )


def train_classifier(args):
    from ect import classifier

    classifier.train(args.settings, args.data, args.out)


def import_model(args):
    from ect import checkpoint, importers

    weights, about = importers.read(args.format, args.source, args.about, args.data)
    checkpoint.save(args.out, weights, **about)


def train(args):
    lease.start_over(args.gpus, args.nodes)
    from ect import train

    starts, limits = (args.resume, args.init), (args.save_seconds, args.max_minutes)
    train.run(args.settings, args.data, args.out, *starts, *limits, args.hold)


def sample(args):
    lease.start_over(args.gpus, args.nodes)
    from ect import evaluate

    evaluate.sample(args.settings, args.model, args.out)


def fetch_inception(args):
    from ect import pretrained

    pretrained.fetch_inception(args.out)


def export_images(args):
    from ect import samples

    samples.export(args.samples, args.folder)


def extract(args):
    lease.start_over(args.gpus, args.nodes)
    from ect import evaluate

    sources = (args.samples, args.model, args.data)
    evaluate.extract(args.settings, args.out, *sources, classifier=args.classifier)


def evaluate(args):
    from ect import evaluate

    measured = (args.samples, args.data, args.out)
    evaluate.evaluate(args.settings, *measured, args.classifier, args.reference)


def trace(args):
    from ect import trace

    inputs = (args.init, args.snapshots, args.data, args.reference)
    trace.run(args.settings, *inputs, args.out, args.classifier)


def search_steps(args):
    from ect import search

    search.run(args.settings, args.model, args.reference, args.out, args.classifier)


def export(args):
    from ect import export

    export.export(args.model, args.out)


def parser():
    """The command line."""
    top = argparse.ArgumentParser(
        prog="ect",
        description="Easy Consistency Tuning: train, sample, evaluate, report. Type `python -m ect"
        " VERB`. Snakemake calls these verbs; `snakemake --cores all` runs the whole study.",
    )
    top.add_argument(
        "--threads", type=given.count, help="CPU threads (default: OMP_NUM_THREADS, or all)"
    )
    top.add_argument(
        "--attempt",
        type=given.count,
        help="for which time a scheduler tries this job: a crash that repeats itself is not tried"
        " a third time",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for function, (help, arguments) in VERBS.items():
        name = function.__name__.replace("_", "-")
        sub = verbs.add_parser(name, help=help, description=help)
        sub.set_defaults(function=function)
        for argument, options in arguments.items():
            sub.add_argument(argument, **options)
    return top


NEEDED = {"required": True}
SETTINGS = {"type": settings_of, "help": "JSON, or a run.json to repeat"}
GPUS = {
    "--gpus": {"type": given.count, "help": "lease so many GPUs, and train or draw on all of them"},
    "--nodes": {"type": given.count, "help": "the nodes of this job of SLURM that have them"},
}
CLASSIFIER = {"help": "weights of the study's own feature space"}
TRAINING = {"required": True, "help": "features of the training images"}

VERBS: dict[Callable, tuple[str, dict]] = {
    prepare: ("write the dataset file", {"settings": SETTINGS, "--out": NEEDED}),
    train_classifier: (
        "train the classifier whose hidden layer is the feature space",
        {"settings": SETTINGS, "--data": NEEDED, "--out": NEEDED},
    ),
    import_model: (
        "a model from elsewhere -> model.safetensors; nothing in its files is run",
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
        "train one cell: a piece of pretraining (r = 0), or a tuning",
        {
            "settings": SETTINGS,
            "--data": NEEDED,
            "--resume": {"help": "state.safetensors of the milestone before"},
            "--init": {"help": "model.safetensors to start from"},
            "--out": NEEDED,
            "--save-seconds": {
                "type": float,
                "help": "time between savings of the work in progress (default: 60, or as much"
                " more as keeps them below 2 %% of the time)",
            },
            "--max-minutes": {
                "type": float,
                "help": "save and stop after so long, with exit code 75: run again to go on",
            },
            "--hold": {
                "action": "store_true",
                "help": "give what was published a second name: Snakemake deletes the first if it"
                " was killed before it noted the end of the job",
            },
            **GPUS,
        },
    ),
    sample: (
        "draw images from a model",
        {"settings": SETTINGS, "--model": NEEDED, "--out": NEEDED, **GPUS},
    ),
    fetch_inception: ("download Inception's weights, unless they are there", {"--out": NEEDED}),
    export_images: (
        "the images of a samples.npz as PNG files",
        {"samples": {}, "folder": {}},
    ),
    extract: (
        "features of samples, of a model's images as it draws them, or of the training images",
        {
            "settings": SETTINGS,
            "--samples": {"help": "samples.npz"},
            "--model": {"help": "model.safetensors; its images are kept nowhere"},
            "--data": {"help": "without samples and model: its training images"},
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
            **GPUS,
        },
    ),
    evaluate: (
        "Frechet and kernel distance of samples to the training images",
        {
            "settings": SETTINGS,
            "--samples": {
                "nargs": "+",
                "help": "samples.npz or its features, of each repeat; without: held-out images",
            },
            "--data": {"help": "the dataset, where samples or reference are not given"},
            "--reference": {"help": "features of the training images"},
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
        },
    ),
    trace: (
        "measure the snapshots of a tuning: distances, residuals, end-to-end errors",
        {
            "settings": SETTINGS,
            "--init": {"required": True, "help": "the model that the tuning started from"},
            "--snapshots": NEEDED,
            "--data": NEEDED,
            "--reference": TRAINING,
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
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
        },
    ),
    export: (
        "a model as a folder to share: weights, card, and a script that draws without this package",
        {"model": {"help": "model.safetensors"}, "--out": {**NEEDED, "help": "a new folder"}},
    ),
    **lease.VERBS,
    **reporting.VERBS,
    **looking.VERBS,
}


def limit_threads(count):
    """Set the number of CPU threads before torch is loaded."""
    if count:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(count)


def main(argv=None):
    """Run a verb; a mistake in its input ends in one line and exit code 1. So does a training that
    saved its work and stopped, with exit code 75 (time), 69 (the end of torchrun) or 128 + the
    number of a signal."""
    args = parser().parse_args(argv)
    limit_threads(args.threads)
    warnings.filterwarnings("ignore", r"`torch.jit.\w+` is deprecated")  # the weights are so stored
    try:
        given.require(args)
        with crash.noted(args.out, args.attempt) if args.attempt else nullcontext():
            args.function(args)
    except progress.Stopped as stop:
        print(f"ect {args.verb}: {stop}", file=sys.stderr)
        return stop.code
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"ect {args.verb}: {error}", file=sys.stderr)
        return 1
    except given.UNFIT as error:
        if sys.flags.dev_mode:
            raise
        print(f"ect {args.verb}: {given.line_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
