"""What a verb is given, looked at before torch is loaded, and a mistake in it as one line."""

import argparse
import json
import traceback
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ect import crash, registry

# Arguments that are files: what writes them, and a name that all such files hold, or one of two.
FILES = {
    "data": ("the dataset file that `prepare` writes", "train"),
    "samples": ("a samples.npz that `sample` writes, or its features", "arr_0|features"),
    "reference": ("the features that `extract` writes", "features"),
    "model": ("a model.safetensors", "network"),
    "init": ("a model.safetensors", "network"),
    "snapshots": ("a snapshots.safetensors", "network"),
    "resume": ("a state.safetensors", "seen"),
    "classifier": ("a classifier.safetensors", "classes"),
    "metrics": ("metrics.json files", None),
    "floor": ("a metrics.json of real images", None),
}
# Names in settings, by where they stand.
NAMES = {
    "source": registry.SOURCES,
    "process": registry.PROCESSES,
    "parameterization": registry.PARAMETERIZATIONS,
    "c_noise": registry.C_NOISE,
    "target": registry.TARGETS,
    "network.architecture": registry.ARCHITECTURES,
    "network.embedding": registry.EMBEDDINGS,
    "recipe.prior.kind": registry.PRIORS,
    "recipe.distance.kind": registry.DISTANCES,
    "recipe.weight": registry.WEIGHTS,
    "recipe.optimizer.name": registry.OPTIMIZERS,
    "recipe.precision": registry.PRECISIONS,
    "precision": registry.PRECISIONS,
    "schedule.map": tuple(registry.SCHEDULES),
    "schedule.clock": registry.CLOCKS,
    "kind": registry.SAMPLERS,
    "features.extractor": registry.EXTRACTORS,
}
# What else may be raised by settings, or by files that do not fit one another.
UNFIT = (
    KeyError, IndexError, TypeError, AttributeError, RuntimeError, EOFError, ArithmeticError,
    MemoryError,
)  # fmt: skip


class Settings(dict):
    """Settings that say which of their keys was asked for and is not there."""

    def __missing__(self, key):
        found = ", ".join(map(str, self)) or "nothing"
        raise ValueError(f"settings: no key '{key}' among {found}; it is needed")


def settings_of(text):
    """The settings of a job: a JSON object, or the path of a run.json that holds them."""
    if text.lstrip().startswith(("{", "[")):
        return _object(text, "settings")
    try:
        return _object(Path(text).read_text(), text)["settings"]
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: neither JSON nor a run.json ({error})") from None


def _object(text, name):
    try:
        found = json.loads(text, object_hook=Settings)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{name}: no JSON ({error}): {text[:60]}") from None
    if not isinstance(found, Settings):
        raise argparse.ArgumentTypeError(f'{name}: found {text[:60]}; allowed: {{"key": value}}')
    return found


def count(text):
    """A whole number >= 1."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"found '{text}'; allowed: a whole number >= 1")
    return int(text)


def require(args):
    """Every file among the arguments is there and of its kind, and every name in the settings is
    known; raises `ValueError`."""
    require_names(getattr(args, "settings", {}))
    for name, (allowed, key) in FILES.items():
        given = getattr(args, name, None) or []
        for path in [given] if isinstance(given, str) else given:
            wrong = _wrong(path, key)
            if wrong:
                raise ValueError(f"--{name}: {path} {wrong}; allowed: {allowed}")


def require_names(settings):
    """The names in settings are known, or may be a plugin's; raises `ValueError`."""
    if "plugins" in settings or "plugins" in settings.get("features", {}):
        return
    for place, allowed in NAMES.items():
        found = settings
        for key in place.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str) and found not in allowed:
            raise ValueError(f"settings: {place} is '{found}'; allowed: {', '.join(allowed)}")


def _wrong(path, key):
    """Why a path is no file that holds `key`, or None."""
    if Path(path).is_dir():
        return "is a folder"
    if not Path(path).exists():
        return "does not exist"
    try:
        if key is None:
            json.loads(Path(path).read_text())
            return None
        held = _held(path)
    except (SafetensorError, OSError, ValueError) as error:
        kind = "a readable checkpoint or archive" if key else "JSON"
        return f"is not {kind} ({error})"
    return None if set(key.split("|")) & set(held) else f"holds no '{key}'"


def _held(path):
    """The names in an npz or safetensors file, and in what the latter says of itself."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    with safe_open(path, framework="np") as file:
        about = json.loads((file.metadata() or {}).get("about", "{}"))
        return [*file.keys(), *about]


def line_of(error):
    """An error that is no message of ours as one line: what, and where it arose."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/ect/" in f.filename]
    last = frames[-1]
    where = f" at ect/{last.filename.rpartition('/ect/')[2]}:{last.lineno}, `{last.line}`"
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    what = ", ".join([what.rstrip(":"), *getattr(error, "__notes__", [])])
    if crash.short_of_memory(error):
        return (
            f"the memory does not suffice: {what}{where}; allowed: a smaller `microbatch` in the"
            " recipe for a training, a smaller `evaluation.batch` for images"
        )
    return (
        f"settings or files that do not fit: {what}{where}; allowed: settings as in a run.json,"
        " with the files of that run (`python -X dev -m ect` shows all of the error)"
    )
