"""The verbs that only look: they read what the others left, and write nothing."""

import json
from collections.abc import Callable

FORMATS = ("table", "csv", "md", "json")


def status(args):
    from ect import status

    status.show(*args.places, live=args.live)


def show(args):
    from ect import show

    show.show(args.places, args.sort, args.filter, args.format)


def diff(args):
    from ect import show

    show.diff(args.first, args.second)


def verify(args):
    from ect import verify

    verify.verify(args.root)


def plan(args):
    from ect import experiment, inherit, plan
    from ect.study import Study

    study = Study.read(inherit.planned(*args.studies))
    found = plan.plan(study, args.rate, experiment.parameters)
    print(json.dumps(found, indent=1) if args.json else plan.table(found))


VERBS: dict[Callable, tuple[str, dict]] = {
    status: (
        "how far every training of a study is: what runs, what is left, what waits",
        {
            "places": {
                "nargs": "*",
                "metavar": "STUDY.yaml|ROOT",
                "help": "files laid over config.yaml as by --configfile, or one folder with runs",
            },
            "--live": {"action": "store_true", "help": "anew every 2 seconds, until all is done"},
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
                "help": "only these runs; may be given again",
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
        "what a study costs before it starts: jobs, images, evaluations, hours, disk",
        {
            "studies": {"nargs": "*", "help": "files laid over config.yaml, as by --configfile"},
            "--rate": {"type": float, "help": "images/s of training, where none was measured"},
            "--json": {"action": "store_true", "help": "the same as JSON"},
        },
    ),
    verify: (
        "name what does not match in a folder of results: hashes, versions, metrics",
        {"root": {"metavar": "ROOT", "help": "a folder with runs, such as results/digits"}},
    ),
}
