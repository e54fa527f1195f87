"""Which files a verb reads and writes: its outputs are checked before the work, and those of a job
without a run.json are recorded after it."""

import os
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from ect.cli.arguments import FILES, UNFIT
from ect.runs import find
from ect.runtime import checkpoint, record
from ect.runtime.text import shown
from ect.runtime.versions import STAGES

# What a verb writes into the folder --out, or with these endings behind the prefix --out.
INTO = {
    "train": (
        "model.safetensors", "state.safetensors", "snapshots.safetensors", "metrics.jsonl",
        "run.json",
    ),
    "train_classifier": ("classifier.safetensors", "run.json"),
    "solve_trajectories": ("trajectories.safetensors", "run.json"),
    "sample": ("samples.npz", "run.json"),
}  # fmt: skip
ENDINGS = {
    "tabulate": ("csv", "md", "tex"),
    "tabulate_steps": ("csv", "md", "tex"),
    "tabulate_paper": ("csv", "md", "tex"),
    "tabulate_nearest": ("csv", "md", "tex"),
    "draw": ("pdf", "png"),
}
SKIPPED = "skipped.txt"  # where `prepare` lists the images that it skipped
# The stage of a verb whose job leaves no run.json: a hidden record lies beside what it makes.
STAGE = {
    "import_model": "import",
    "perfect_loss": "perfect",
    "reconstruct_average": "average",
    "export_images": "extract",
    "summarize": "evaluate",
    "evaluate": "evaluate",
    "find_nearest": "nearest",
    "trace": "trace",
    "search_steps": "search",
    "write_page": "report",
    **dict.fromkeys(ENDINGS, "report"),
}
# The stage of a verb whose job leaves a record of its own.
OWN = {
    "prepare": "prepare",
    "train": "train",
    "train_classifier": "classifier",
    "solve_trajectories": "trajectories",
    "sample": "sample",
    "extract": "extract",
}
# What `prepare` reads of the folder `path`, where that is not all of it.
INSIDE = {
    "imagenet64": ("train",),
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "mnist": ("MNIST",),
    "fashion_mnist": ("FashionMNIST",),
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
    more = {"prepare": (SKIPPED, "run.json"), "extract": (f"{Path(out).stem}.json",)}
    return [Path(out), *(Path(out).parent / name for name in more.get(verb, ()))]


def place(args):
    """The file or folder that a verb is told to write, or None."""
    return getattr(args, "out", None) or getattr(args, "folder", None)


def nothing_left(args):
    """In its block no empty folder is left on the way to the outputs of a verb that fails."""
    paths = [place(args), *(path.parent for path in written(args))]
    return checkpoint.no_folder_left(*(path for path in paths if path))


def require_outputs(args):
    """Raise `ValueError` unless every output of a verb can be written where it is to go, and
    replaces neither an input nor what another job left."""
    files, verb = written(args), args.function.__name__
    folder = args.out if verb in (*INTO, "export") else getattr(args, "folder", None)
    if folder is not None:
        name = os.path.basename(os.path.realpath(folder)) if folder.strip() else ""
        if not 0 < len(os.fsencode(name)) <= checkpoint.LONGEST:
            allowed = f"a folder with a name, of at most {checkpoint.LONGEST} bytes"
            raise ValueError(f"--out: found {shown(repr(folder), 80)}; allowed: {allowed}")
        checkpoint.require_folder(folder)
    if verb in ENDINGS and not os.path.basename(args.out):
        raise ValueError(
            f"--out: found {shown(repr(args.out), 80)}; allowed: a path with a name, without suffix"
        )
    for path in files:
        checkpoint.require_regular(path)
    if len(set(files)) < len(files):
        found = f"found {shown(args.out)}, the name of its record or of its list of skipped images"
        raise ValueError(f"--out: {found}; allowed: another one")
    if verb == "prepare":
        _require_skipped(files[1])
    if verb == "export_images" and os.path.isdir(args.folder) and os.listdir(args.folder):
        raise ValueError(f"{shown(folder)}: found a folder with files; allowed: a new or empty one")
    inputs, told = _sources(args), _told_in(args)
    for path in files:
        own = verb in OWN and path == files[-1]
        _require_no_input(path, inputs if own else [*inputs, *told], verb)
        _require_replaceable(path, OWN.get(verb) or STAGE.get(verb), own)


def _require_skipped(path):
    """Raise `ValueError` if a file where `prepare` lists skipped images, a line `NAME: REASON` for
    each, is of another kind: it would be replaced."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    if not all(b": " in line for line in lines):
        found = f"found {shown(path)}, which `prepare` did not write"
        raise ValueError(f"--out: {found}; allowed: a folder without such a file")


def _require_no_input(path, sources, verb):
    """Raise `ValueError` if `path` is one of the sources by any of its names, or lies in one."""
    found = {key: source for source in sources for key in _keys(source)}
    for outer in (path, *path.resolve().parents):
        for source in (found[key] for key in _keys(outer) if key in found):
            place = "" if outer == path else f", in {shown(source)}"
            raise ValueError(
                f"--out: found {shown(path)}{place}, which `{verb.replace('_', '-')}` reads;"
                " allowed: what is no input"
            )


def _keys(path):
    """What a file or folder that exists is told by, however its path is spelled. A file with more
    hard links is its path alone: it is replaced, and its other names keep what they had."""
    with suppress(OSError, ValueError):
        found = os.stat(path)
        yield os.path.realpath(path)
        if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
            yield found.st_dev, found.st_ino


def _require_replaceable(path, stage, own):
    """Raise `ValueError` if `path` is there and is the record of another stage, or a record there
    names it as an output of one. Where a verb's `own` record goes, no other file may be."""
    if not path.is_file():
        return
    found, _ = _record_at(path)
    if found != stage and (own or found):
        what = f"the record of another job ({found})" if found else "a file that is no record"
        raise ValueError(f"{shown(path)}: found {what}; allowed: a folder of its own for each job")
    for beside in (path.with_name("run.json"), record.beside(path)):
        found, outputs = _record_at(beside)
        if path.name in outputs and found not in (None, stage):
            raise ValueError(
                f"{shown(path)}: found an output of another job ({found}), by {shown(beside)};"
                " allowed: another path"
            )


def _record_at(path):
    """(stage, outputs) in a job's record; (None, ()) for what is none."""
    if path.suffix == ".json":
        with suppress(ValueError):
            found = find.read(path)
            return find.stage_of(found), found.get("outputs", ())
    return None, ()


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
    flat = given(args, (*FILES, "published", "runs", "source"))
    flat += _named(args.function.__name__, getattr(args, "settings", None) or {})
    if "features" in getattr(args, "settings", {}) and args.function.__name__ in STAGE:
        from ect.evaluation import evaluate

        classifier = getattr(args, "classifier", None)
        flat += evaluate.network_file(args.settings["features"], classifier)
    here = Path.cwd()
    paths = [Path(path) for path in flat if path is not None and Path(path).is_file()]
    return list(dict.fromkeys(p.relative_to(here) if p.is_relative_to(here) else p for p in paths))


def given(args, names):
    """The values of arguments that are paths, or lists of them, in one list."""
    found = [getattr(args, name, None) for name in names]
    return [path for value in found for path in (value if isinstance(value, list) else [value])]


def _sources(args):
    """The files and folders that a verb will read, as far as its arguments tell them; what is wrong
    with settings is for the verb to say."""
    verb, settings = args.function.__name__, getattr(args, "settings", None) or {}
    flat = given(args, (*FILES, "published", "runs", "source", "template", "plugins"))
    with suppress(ValueError, *UNFIT):
        flat += _named(verb, settings)
    parts = [settings, *(settings.get(key) for key in ("features", "sampling"))]
    for part in (part for part in parts if isinstance(part, dict)):
        plugins, weights = part.get("plugins"), part.get("inception_path")
        flat += [*(plugins if isinstance(plugins, dict) else ()), part.get("dinov2_path")]
        flat += [*Path(weights).glob("*.pt")] if isinstance(weights, str) else []
    recipe = settings.get("recipe")
    distance = recipe.get("distance") if isinstance(recipe, dict) else None
    flat.append(distance.get("path") if isinstance(distance, dict) else None)
    if verb == "prepare" and isinstance(settings.get("path"), str):
        flat += [Path(settings["path"], inside) for inside in _inside(settings.get("source"))]
    return [path for path in flat if isinstance(path, (str, Path))]


def _inside(source):
    """The parts of the folder `path` that `prepare` reads; ('',) for all of it."""
    return INSIDE.get(source, ("",)) if isinstance(source, str) else ()


def _told_in(args):
    """The files in which a verb's settings were given."""
    given = (getattr(args, name, None) for name in ("settings", "about", "solvers"))
    return [path for path in (getattr(value, "path", None) for value in given) if path]


def tell_version(args):
    """Say on stderr where settings are read from a record of another version of the stage: the job
    may leave other bits than that one did."""
    stage = OWN.get(verb := args.function.__name__) or STAGE.get(verb)
    path = getattr(getattr(args, "settings", None), "path", None)
    if path is None or stage is None:
        return
    made = checkpoint.read_json(path, known={"stages": dict}).get("stages", {}).get(stage)
    if made not in (None, STAGES[stage]):
        found = f"{shown(path)} is of version {shown(made, 20)} of {stage}"
        told = f"{found}, this code of version {STAGES[stage]}: its bits may be others"
        print(f"ect {verb.replace('_', '-')}: {told}", file=sys.stderr)


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
        found += [settings.get(key) for key in ("floor", "trace", "perfect", "data", "nearest")]
        found += [settings.get("samples")]
        found += [path for paths in settings.get("runs", {}).values() for path in paths]
        return found + [path for _, path in settings.get("rows", [])]
    return []
