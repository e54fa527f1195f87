"""Which files a verb reads and writes: its outputs are checked before the work, and those of a job
without a run.json are recorded after it."""

from contextlib import contextmanager
from pathlib import Path

from ect.cli.arguments import FILES
from ect.runtime import checkpoint, record

# What a verb writes into the folder --out, or with these endings behind the prefix --out.
INTO = {
    "train": (
        "model.safetensors", "state.safetensors", "snapshots.safetensors", "metrics.jsonl",
        "run.json",
    ),
    "train_classifier": ("classifier.safetensors", "run.json"),
    "sample": ("samples.npz", "run.json"),
}  # fmt: skip
ENDINGS = {
    "tabulate": ("csv", "md", "tex"),
    "tabulate_steps": ("csv", "md", "tex"),
    "tabulate_paper": ("csv", "md", "tex"),
    "draw": ("pdf", "png"),
}
# The stage of a verb whose job leaves no run.json: a hidden record lies beside what it makes.
STAGE = {
    "import_model": "import",
    "perfect_loss": "perfect",
    "reconstruct_average": "average",
    "export_images": "extract",
    "evaluate": "evaluate",
    "trace": "trace",
    "search_steps": "search",
    "write_page": "report",
    **dict.fromkeys(ENDINGS, "report"),
}
SAID = ("kind", "solvers", "format", "source", "about")  # settings that are options of their own


def written(args):
    """The files that a verb will write, as far as its arguments tell them."""
    verb, out = args.function.__name__, getattr(args, "out", None)
    if out is None or verb == "export":
        return []
    if verb in INTO:
        return [Path(out) / name for name in INTO[verb]]
    if verb in ENDINGS:
        return [Path(f"{out}.{ending}") for ending in ENDINGS[verb]]
    more = {"prepare": "run.json", "extract": f"{Path(out).stem}.json"}
    return [Path(out), *([Path(out).parent / more[verb]] if verb in more else [])]


def require_outputs(args):
    """Raise `ValueError` unless every output of a verb can be written where it is to go."""
    files, verb = written(args), args.function.__name__
    folder = getattr(args, "folder", None) or (args.out if verb in (*INTO, "export") else None)
    if folder is not None:
        checkpoint.require_folder(folder)
    for path in files:
        checkpoint.require_regular(path)
    if len(set(files)) < len(files):
        raise ValueError(f"--out: found {args.out}, the name of its record; allowed: another one")


@contextmanager
def recorded(args):
    """Record the job of a verb that leaves no run.json, once the block has ended."""
    verb = args.function.__name__
    if verb not in STAGE:
        yield
        return
    first = Path(args.folder) if verb == "export_images" else written(args)[0]

    def describe():
        outputs = sorted(first.iterdir()) if verb == "export_images" else written(args)
        said = {key: getattr(args, key) for key in SAID if getattr(args, key, None) is not None}
        settings = getattr(args, "settings", None)
        return STAGE[verb], said if settings is None else settings, read(args), outputs

    with record.recorded(first, describe):
        yield


def read(args):
    """The files that a verb has read, each once; those below the working folder relative to it."""
    found = [getattr(args, name, None) for name in (*FILES, "published", "runs", "source")]
    flat = [path for value in found for path in (value if isinstance(value, list) else [value])]
    flat += _named(args.function.__name__, getattr(args, "settings", None) or {})
    if "features" in getattr(args, "settings", {}) and args.function.__name__ in STAGE:
        from ect.evaluation import evaluate

        flat += evaluate.network_file(args.settings["features"], args.classifier)
    here = Path.cwd()
    paths = [Path(path) for path in flat if path is not None and Path(path).is_file()]
    return list(dict.fromkeys(p.relative_to(here) if p.is_relative_to(here) else p for p in paths))


def _named(verb, settings):
    """The files that the settings of a table, a figure or the page name."""
    if verb == "tabulate_steps":
        return [model["path"] for model in settings["models"]]
    if verb == "tabulate_paper":
        return [path for cell in settings["cells"] for path in cell["metrics"]]
    if verb == "write_page":
        blocks = settings["experiments"].values()
        tables = [*(block["table"] for block in blocks), *settings["tables"].values()]
        figures = [*(block["figure"] for block in blocks), *settings["figures"].values()]
        return [*tables, *(Path(path).with_suffix(".md") for path in tables), *figures]
    if verb == "draw":
        several = settings.get("metrics") or []
        found = [*([several] if isinstance(several, str) else several)]
        found += [settings.get(key) for key in ("floor", "trace", "perfect", "data")]
        found += [path for paths in settings.get("runs", {}).values() for path in paths]
        return found + [path for _, path in settings.get("rows", [])]
    return []
