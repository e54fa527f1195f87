"""The verbs that measure: features, distances, traces, searches."""

from collections.abc import Callable

from ect.cli.arguments import GPUS, NEEDED, ONE_GPU, PLUGINS, SETTINGS
from ect.runtime import lease

CLASSIFIER = {"help": "weights of the study's own classifier, the feature space"}
TRAINING = {"required": True, "help": "features of the training images"}


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


def find_nearest(args):
    lease.start_over(args.gpus)
    from ect.evaluation import nearest

    nearest.run(
        args.settings,
        args.samples,
        args.data,
        args.reference,
        args.out,
        classifier=args.classifier,
    )


def search_steps(args):
    lease.start_over(args.gpus)
    from ect.evaluation import search

    search.run(args.settings, args.model, args.reference, args.out, classifier=args.classifier)


VERBS: dict[Callable, tuple[str, dict]] = {
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
    find_nearest: (
        "how near drawn images lie to training images, beside how near held-out ones do",
        {
            "settings": SETTINGS,
            "--samples": {"required": True, "help": "samples.npz"},
            "--data": NEEDED,
            "--reference": TRAINING,
            "--classifier": CLASSIFIER,
            "--out": NEEDED,
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
}
