"""The verbs that make data, models and samples."""

import sys
from collections.abc import Callable

from ect import registry
from ect.cli.arguments import GPUS, NEEDED, ONE_GPU, PLUGINS, SETTINGS, settings_of
from ect.runtime import lease
from ect.runtime.options import amount


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
        trajectories=args.trajectories,
        save_seconds=args.save_seconds,
        max_minutes=args.max_minutes,
        hold=args.hold,
    )


def perfect_loss(args):
    from ect.training import perfect

    perfect.run(args.settings, args.data, args.out, init=args.init)


def reconstruct_average(args):
    from ect.training import reconstruct

    error = reconstruct.run(args.settings, args.model, args.states, args.out)
    print(f"{args.out}: the average's profile is the wanted one to {error:.2%}", file=sys.stderr)


def solve_trajectories(args):
    lease.start_over(args.gpus)
    from ect.evaluation import solve

    solve.run(args.settings, args.model, args.out)


def sample(args):
    lease.start_over(args.gpus, args.nodes)
    from ect.evaluation import sample

    sample.run(args.settings, args.model, args.out)


def export(args):
    from ect.models import export

    export.export(args.model, args.out, args.diffusers)
    first = "README.md" if args.diffusers else "sample.py"
    print(f"{args.out}: a model that draws images without this package; begin with its {first}")


def push(args):
    from ect.models.export import hub

    print(hub.push(args.name, args.exported, args.private))


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
            "--trajectories": {"help": "the file that a recipe of mid-training trains on"},
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
    reconstruct_average: (
        "a model averaged over a length that its chain did not keep, from its milestones",
        {
            "settings": SETTINGS,
            "--model": {"required": True, "help": "a model.safetensors of the chain"},
            "--states": {
                "nargs": "+",
                "required": True,
                "help": "state.safetensors of its milestones, up to the last of the average",
            },
            "--out": NEEDED,
        },
    ),
    solve_trajectories: (
        "trajectories of a pretrained model's ODE, for mid-training",
        {"settings": SETTINGS, "--model": NEEDED, "--out": NEEDED, **PLUGINS, **ONE_GPU},
    ),
    sample: (
        "sample images from a model",
        {"settings": SETTINGS, "--model": NEEDED, "--out": NEEDED, **PLUGINS, **GPUS},
    ),
    export: (
        "a model as a folder to share: weights, card, a script that samples without this package",
        {
            "model": {"help": "model.safetensors"},
            "--out": {**NEEDED, "help": "a new folder"},
            "--diffusers": {
                "action": "store_true",
                "help": "as a ConsistencyModelPipeline, for DiffusionPipeline.from_pretrained",
            },
        },
    ),
    push: (
        "upload an exported folder to Hugging Face's hub (or HF_ENDPOINT), with the token in"
        " HF_TOKEN or of `hf auth login`",
        {
            "name": {"metavar": "OWNER/NAME", "help": "the repository, made where there is none"},
            "exported": {"metavar": "FOLDER", "help": "what `export` wrote"},
            "--private": {"action": "store_true", "help": "a new repository is private"},
        },
    ),
}
