"""The verbs that make tables, figures and the page."""

from collections.abc import Callable

from ect.cli.arguments import settings_of

KINDS = ("methods", "schedules", "split", "scaling", "solvers", "noise", "ends", "lengths")


def tabulate(args):
    from ect.report import noise, tables

    if args.kind == "noise":
        if args.solvers is not None:  # a study's rule gives --floor to every table
            raise ValueError("solvers is set for the kind 'noise'; allowed: 'solvers' only")
        noise.tabulate(args.metrics, args.out, args.about)
    else:
        tables.tabulate(args.kind, args.metrics, args.out, args.floor, args.solvers, args.about)


def tabulate_steps(args):
    from ect.report import steps

    steps.tabulate(args.settings["models"], args.out)


def tabulate_paper(args):
    from ect.report import paper

    paper.tabulate(**args.settings, numbers=args.published, out=args.out)


def tabulate_nearest(args):
    from ect.report import nearest

    nearest.tabulate(args.source, args.out)


def draw(args):
    from ect.report import figures

    figures.plot(args.figure, args.settings, args.out)


def write_page(args):
    from ect.report import page
    from ect.runs import find

    for path in args.runs:
        find.read(path)
    page.write_page(**args.settings, template=args.template, runs=args.runs, out=args.out)


PREFIX = {"required": True, "help": "path without suffix"}

VERBS: dict[Callable, tuple[str, dict]] = {
    tabulate: (
        "metrics.json files -> one table as csv, md and tex",
        {
            "kind": {"choices": KINDS},
            "--metrics": {"nargs": "+", "required": True},
            "--floor": {"help": "metrics of real held-out images"},
            "--solvers": {"type": settings_of, "help": "JSON: the kind of each sampler"},
            "--about": {
                "type": settings_of,
                "help": "JSON: of the kind noise the conditions of each start, of the kind ends"
                " the map and last gap of each schedule",
            },
            "--out": PREFIX,
        },
    ),
    tabulate_steps: (
        "steps.json files -> the table of searched times as csv, md and tex",
        {
            "settings": {
                "type": settings_of,
                "help": "JSON: models, each with the path of its file",
            },
            "--out": PREFIX,
        },
    ),
    tabulate_paper: (
        "published numbers and ours beside them, as csv, md and tex",
        {
            "settings": {"type": settings_of, "help": "JSON: dataset, and cells with their files"},
            "--published": {"required": True, "help": "the csv of published numbers"},
            "--out": PREFIX,
        },
    ),
    tabulate_nearest: (
        "what `find-nearest` wrote -> its table as csv, md and tex",
        {"source": {"metavar": "nearest"}, "--out": PREFIX},
    ),
    draw: (
        "one figure as pdf and png",
        {
            "figure": {},
            "settings": {"type": settings_of, "help": "JSON: what the figure's function takes"},
            "--out": PREFIX,
        },
    ),
    write_page: (
        "tables, figures and run.json files -> one page to open in a browser",
        {
            "settings": {"type": settings_of, "help": "JSON: questions, and the files of each"},
            "--template": {"required": True, "help": "its layout, with the captions beside it"},
            "--runs": {"nargs": "+", "required": True, "help": "run.json files"},
            "--out": {"required": True, "help": "an html file"},
        },
    ),
}
