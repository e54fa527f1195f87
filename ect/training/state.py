"""What a training run is at one moment, and as tensors that can be saved."""

import copy

import torch

from ect.models import build
from ect.models.about import Foreign
from ect.networks import native
from ect.networks.edm2 import force_unit_weights
from ect.runtime import checkpoint, device
from ect.runtime.versions import DEFAULTS, MASKS, NATIVE, setting
from ect.training import average, parts
from ect.training.log import Meter, finite

SCALE = 2.0**16  # the initial loss scale in fp16: torch's default
# The smallest normal number of fp16: with a lower loss scale even a gradient of 1 is subnormal.
LEAST_SCALE = 2.0**-14
SOMETIMES = ("uncertainty.", "embedding.augment.")  # parameters that some runs do not train


def _require_known(recipe):
    """Raises `ValueError` for versions of kernels or masks that are not those of this code. Dropout
    without a version is that of runs before masks had one."""
    if recipe["dropout"] > 0 and "masks" not in recipe:
        raise ValueError(
            f"recipe.masks: missing beside dropout {recipe['dropout']:g}, as in the run.json of"
            " a run before masks had a version, whose bits this code does not repeat; allowed:"
            f' "masks": {MASKS} for a run with those of today, or the code of that time'
        )
    known = {"kernels": ("native", f"native-{NATIVE}"), "masks": (MASKS,)}
    for key, allowed in known.items():
        if recipe.get(key, DEFAULTS.get(key)) not in (*allowed, DEFAULTS.get(key)):
            names = ", ".join(map(str, allowed))
            raise ValueError(f"{key} is {recipe[key]!r}; allowed: {names}, or no such key")


def _require_moments(slots, seen, least):
    """Raises `Foreign` unless an optimizer's slots, {index.name: tensor}, can be those of a run
    after `seen` images: all parameters took equally many steps, at least `least`, and mean squares
    are no less than 0."""
    steps = {value.item() for name, value in slots.items() if name.endswith(".step")}
    if len(steps) > 1 or not all(least <= step <= seen and step % 1 == 0 for step in steps):
        found = f"optimizer steps of {', '.join(f'{step:g}' for step in sorted(steps)[:4])}"
        raise Foreign("state", found, f"one whole number, from {least} to {seen}")
    for name, value in slots.items():
        if name.endswith(".exp_avg_sq") and (value < 0).any():
            raise Foreign("state", f"negative numbers in optimizer.{name}", "squares")


class State:
    """What a run is at one moment: network, moving averages, optimizer, images seen, and the log;
    the seconds it took so far, and the images at which it was resumed. In fp16 also the loss scale,
    and how many steps were skipped since the start of its chain; with an averaged target its
    network, `target`, which no gradient reaches."""

    def __init__(self, settings, images):
        recipe = settings["recipe"]
        _require_known(recipe)
        self.network = build.make_network(
            settings["network"],
            images.shape,
            recipe["dropout"],
            settings["seed"],
            setting(recipe, "dropout_at"),
        )
        precision, kernels = setting(recipe, "precision"), setting(recipe, "kernels")
        if kernels != DEFAULTS["kernels"]:
            native.use(self.network, precision)
        self.network.train()
        self.averages = [self._weights() for _ in average.singly(recipe)]
        self.target = None
        if settings["target"] == "ema":
            self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = parts.make_optimizer(recipe["optimizer"], self.network.parameters())
        self.scaler = torch.amp.GradScaler(
            device.current().type, SCALE, enabled=precision == "fp16"
        )
        self.skipped = torch.zeros((), dtype=torch.int64, device=device.current())
        self.seen, self.lines, self.snapshots = 1000 * settings["first_kimg"], [], {}
        self.meter, self.seconds, self.resumed = Meter(), 0.0, []

    def start_from(self, weights):
        """Start from these weights, with a fresh optimizer; raises `Foreign`."""
        build.require_match(weights, self.network.state_dict())
        self.network.load_state_dict(weights)
        force_unit_weights(self.network)
        self.averages = [self._weights() for _ in self.averages]
        if self.target is not None:
            self.target.load_state_dict(self.network.state_dict())

    def _weights(self):
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    @property
    def average(self):
        """The average that the run publishes."""
        return self.averages[0]

    def take_step(self, loss):
        """Step the optimizer along the gradient of `loss`. Returns a Boolean tensor of one element:
        whether loss and gradient are finite. In fp16 a step with a non-finite gradient is skipped
        and halves the loss scale, and counts as finite while the scale is >= `LEAST_SCALE`."""
        self.scaler.unscale_(self.optimizer)
        fine = finite(loss, self.network.parameters())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        force_unit_weights(self.network)
        if not self.scaler.is_enabled():
            return fine
        self.skipped += ~fine
        return loss.isfinite() & (self.scaler.scale(torch.ones_like(loss)) >= LEAST_SCALE)

    def scaling(self):
        """The loss scale as tensors, and the number of skipped steps; {} unless in fp16."""
        if not self.scaler.is_enabled():
            return {}
        scaler = self.scaler.state_dict()
        scale = torch.tensor(scaler["scale"], dtype=torch.float64)
        tracker = torch.tensor(scaler["_growth_tracker"])
        return {"scale": scale, "growth_tracker": tracker, "skipped": self.skipped}

    def tensors(self):
        slots = {
            f"{index}.{name}": value
            for index, slot in self.optimizer.state_dict()["state"].items()
            for name, value in slot.items()
        }
        return (
            checkpoint.prefixed("network", self.network.state_dict())
            | self._average_tensors()
            | self._target_tensors()
            | checkpoint.prefixed("optimizer", slots)
            | checkpoint.prefixed("scaler", self.scaling())
        )

    def keep_snapshot(self):
        """Copy the moving average into the host's memory, which has room for many."""
        self.snapshots[self.seen] = {k: v.to("cpu", copy=True) for k, v in self.average.items()}

    def _average_tensors(self):
        """The averages' tensors, headed by `average`, `average1`, ..."""
        named = zip(average.names(len(self.averages)), self.averages)
        return {k: v for name, one in named for k, v in checkpoint.prefixed(name, one).items()}

    def _target_tensors(self):
        """The tensors of an averaged target, headed by `target`; {} without one."""
        weights = {} if self.target is None else self.target.state_dict()
        return checkpoint.prefixed("target", weights)

    def snapshot_tensors(self):
        """The snapshots' tensors by name, headed by their number of images."""
        snapshots = (checkpoint.prefixed(seen, weights) for seen, weights in self.snapshots.items())
        return {key: value for tensors in snapshots for key, value in tensors.items()}

    def require(self, tensors, seen):
        """Raise `Foreign` unless these are the tensors of such a run after `seen` images: network,
        averages, target, optimizer and, in fp16, the loss scale, all of their shapes and
        finite."""
        parts = ("network", *average.names(len(self.averages)), "target", "optimizer", "scaler")
        expected = checkpoint.prefixed("network", self.network.state_dict())
        expected |= self._average_tensors() | self._target_tensors()
        expected |= checkpoint.prefixed("scaler", self.scaling())
        found = {k: v for k, v in tensors.items() if k.split(".", 1)[0] in parts}
        slots, skips = checkpoint.within("optimizer", tensors), self.scaler.is_enabled()
        if seen > 0 and not (skips and not slots):  # in fp16 all steps may be skipped
            expected |= checkpoint.prefixed("optimizer", self._slots(slots))
        build.require_match(found, expected, "state", exact=True)
        _require_moments(slots, seen, 0 if skips else 1)

    def _slots(self, found):
        """Tensors of the shapes of what the optimizer, Adam or RAdam, keeps of each parameter; of
        what reads augmentation and of the uncertainty, which not every run trains, where that is
        found."""
        slots = {}
        for index, (name, weight) in enumerate(self.network.named_parameters()):
            if f"{index}.step" in found or not name.startswith(SOMETIMES):
                slots |= {f"{index}.exp_avg": weight, f"{index}.exp_avg_sq": weight}
                slots[f"{index}.step"] = torch.zeros(())
        return slots

    def restore(self, tensors, seen):
        """Go on from the tensors of `tensors()` after `seen` images; raises `Foreign`."""
        self.require(tensors, seen)
        self.network.load_state_dict(checkpoint.within("network", tensors))
        if self.target is not None:
            self.target.load_state_dict(checkpoint.within("target", tensors))
        for name, one in zip(average.names(len(self.averages)), self.averages):
            for key, value in checkpoint.within(name, tensors).items():
                one[key].copy_(value)
        slots, parameters = {}, list(self.network.parameters())
        for key, value in checkpoint.within("optimizer", tensors).items():
            index, name = key.split(".")
            if value.ndim:  # fused Adam reads moments in the memory format of their parameter
                value = torch.empty_like(parameters[int(index)]).copy_(value)
            slots.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": slots})
        if scaling := checkpoint.within("scaler", tensors):
            saved = {"scale": scaling["scale"].item()}
            saved["_growth_tracker"] = int(scaling["growth_tracker"])
            self.scaler.load_state_dict(self.scaler.state_dict() | saved)
            self.skipped.copy_(scaling["skipped"])
        self.seen = seen
