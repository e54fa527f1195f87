"""What a run starts from and reads: whether its files are there, and fit its settings."""

from ect.models import build
from ect.ode import STEPS
from ect.runtime.versions import setting
from ect.training.parts import needs_teacher


def require(settings, resume, init, trajectories=None):
    """Raise `ValueError` unless a run has one start, the files that its loss reads, and images only
    if its last image is after its first."""
    first, last = settings["first_kimg"], settings["last_kimg"]
    if resume and init:
        raise ValueError(f"found --resume {resume} and --init {init}; allowed: one of them")
    if not resume and first != 0:
        raise ValueError(f"first_kimg is {first} without --resume; allowed: 0, or with a state")
    if first >= last and (first, last) != (0, 0):
        raise ValueError(f"first_kimg is {first}; allowed: < last_kimg = {last}")
    if settings["target"] in STEPS and not init:
        raise ValueError(f"target is '{settings['target']}' without --init; allowed: own, ema")
    if needs_teacher(settings) and not init:
        raise ValueError("truncate is set without --init; allowed: with a tuned model as the start")
    named = setting(settings["recipe"], "trajectories")
    if named is not None and not trajectories:
        raise ValueError(f"recipe.trajectories is '{named}' without --trajectories; allowed: both")
    if trajectories and named is None:
        found = f"found --trajectories {trajectories} with a recipe that names none"
        raise ValueError(f"{found}; allowed: a recipe with trajectories")


def teacher(settings, init):
    """The frozen start, as a denoiser where a solver of the ODE takes its step; None where the loss
    has no part of it."""
    if not needs_teacher(settings):
        return None
    start = build.load_model(init, settings.get("plugins", ()))[0]
    return start if settings["target"] == "own" else start.denoiser()


def require_classes(settings, images, data, exact):
    """A network with classes has as many as the images; an imported one at least as many, as only
    those that are trained are sampled. Trajectories are of a network with as many."""
    classes, count = setting(settings["network"], "classes"), len(images.classes or ())
    if classes and (classes != count if exact or not count else classes < count):
        allowed = f"{count}, as many" if exact or not count else f"{count} or more"
        raise ValueError(
            f"networks: classes is {classes}, but {data} has {count or 'no classes'}; allowed:"
            f" {allowed}"
        )
    solved = getattr(images, "conditions", classes)
    if solved != classes:
        found = f"found trajectories of a network with {solved} classes"
        raise ValueError(f"networks: {found}, for one with {classes}; allowed: as many")
