"""The verbs that only read what the others left, and write no results."""

import json
from collections.abc import Callable

from ect.runtime.options import amount

FORMATS = ("table", "csv", "md", "json")


def status(args):
    from ect.runs import status

    status.show(*args.places, live=args.live)


def show(args):
    from ect.runs import compare

    compare.show(args.places, args.sort, args.filter, args.format)


def diff(args):
    from ect.runs import compare

    compare.diff(args.first, args.second)


def verify(args):
    from ect.runs import verify

    verify.verify(args.root)


def tensorboard(args):
    from ect.runs import curves

    written = curves.write(args.root)
    new = sum(written.values())
    print(f"{args.root}/{curves.FOLDER}: {new} new lines of the logs of {len(written)} runs")


def plan(args):
    from ect.config import load
    from ect.config.config import Config
    from ect.data import look

    study = Config.read(load.planned(*args.studies))
    facts = study.fit(look.facts)
    from ect.models import build  # and torch, which a mistake need not wait for
    from ect.report import planned
    from ect.runs import pending
    from ect.study import advice, cost, noise, table
    from ect.training import memory, reconstruct

    with study.placed():
        reconstruct.require_near(study)
    costs = cost.plan(
        study, args.rate, build.parameters, facts.shape, memory.of_step,
        lambda: pending.outputs(*args.studies),
    )  # fmt: skip
    lines, powers = advice.advice(study), planned.lines(noise.planned(study))
    text = "\n".join([table.table(costs), *lines, *powers])
    costs |= {"advice": lines, "power": powers}
    print(json.dumps(costs, indent=1) if args.json else text)


VERBS: dict[Callable, tuple[str, dict]] = {
    status: (
        "how far every training run of a study is: what runs, what is left, what waits",
        {
            "places": {
                "nargs": "*",
                "metavar": "STUDY.yaml|ROOT",
                "help": "files laid over config.yaml as by --configfile, or one folder with runs",
            },
            "--live": {
                "action": "store_true",
                "help": "refresh every 2 seconds until all runs are done",
            },
        },
    ),
    show: (
        "runs as a table: the parameters that differ, metrics, budget, cost",
        {
            "places": {"nargs": "+", "metavar": "RESULTS", "help": "folders with runs"},
            "--sort": {"metavar": "COLUMN", "help": "the column to order by, such as fd"},
            "--filter": {
                "action": "append",
                "default": [],
                "metavar": "COLUMN=VALUE",
                "help": "only these runs; may be repeated",
            },
            "--format": {"choices": FORMATS, "default": "table"},
        },
    ),
    diff: (
        "what differs between two runs: settings, inputs, code, packages, metrics",
        {
            "first": {"metavar": "RUN_A", "help": "the folder of a run, or its run.json"},
            "second": {"metavar": "RUN_B"},
        },
    ),
    plan: (
        "what a study costs before it starts: jobs, images, evaluations, hours, disk, memory; what"
        " is missing",
        {
            "studies": {"nargs": "*", "help": "files laid over config.yaml, as by --configfile"},
            "--rate": {
                "type": amount(1e-3, 1e9),
                "help": "images/s of training, besides the measured rates",
            },
            "--json": {"action": "store_true", "help": "the same as JSON"},
        },
    ),
    tensorboard: (
        "the curves of training runs, finished or not, for `tensorboard --logdir ROOT`; again for"
        " what is new",
        {"root": {"metavar": "ROOT", "help": "a folder with runs, such as results/digits"}},
    ),
    verify: (
        "name what does not match in a folder of results: hashes, versions, metrics",
        {"root": {"metavar": "ROOT", "help": "a folder with runs, such as results/digits"}},
    ),
}
