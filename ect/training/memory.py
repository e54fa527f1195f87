"""What a training step holds in memory, computed before it runs: weights, gradients, moments and
averages, and what the forward pass keeps for the backward pass of one microbatch.

The last is counted, tensor by tensor, in a forward pass: of a small network with numbers, of a
large one on torch's fake tensors, which have shapes and take no memory. Workspaces, the target's
own pass and the allocator's slack come on top; in half precision the kernels are those of a CPU,
and a GPU keeps some norms in float32.
"""

import contextlib

import torch

from ect.models import build
from ect.networks.dropout import Masks
from ect.runtime.versions import setting
from ect.training import average, parts

FLOAT = 4  # bytes
MOMENTS = 2  # of Adam and RAdam, for each weight
LARGE = 10**7  # weights from which a forward pass with numbers takes too long
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def of_step(settings, shape):
    """{part: bytes} of a step of a training run on images of `shape` (C, H, W); its settings name
    the network. `images` is the number of those computed at a time, `total` the sum of bytes."""
    recipe, network = settings["recipe"], settings["network"]
    weights = FLOAT * build.parameters(network, shape)
    size = setting(recipe, "microbatch") or recipe["batch"]
    sizes = {
        "weights": weights,
        "gradients": weights,
        "moments": MOMENTS * weights,
        "averages": len(average.singly(recipe)) * weights,
        "teacher": weights if parts.needs_teacher(settings) else 0,
        "target": weights if settings["target"] == "ema" else 0,
        "activations": activations(network, shape, recipe, size),
    }
    return sizes | {"total": sum(sizes.values()), "images": size}


def activations(network, shape, recipe, size):
    """Bytes that a forward pass of `size` images keeps for the backward pass, beside the weights.
    They are a number for the weights and one for each image, so that two small passes tell."""
    if build.parameters(network, shape) >= LARGE:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True):
            return _kept(network, shape, recipe, size)
    one, two = (_kept(network, shape, recipe, count) for count in (1, 2))
    return one + (size - 1) * (two - one)


def _kept(network, shape, recipe, size):
    rates = recipe["dropout"], setting(recipe, "dropout_at")
    model = _channels_last(build.build_network(network, shape, *rates).train())
    x, label = torch.zeros(size, *shape), torch.zeros(size, dtype=torch.int64)
    known = {"label": label} if setting(network, "classes") else {}
    known |= {"span": x[:, 0, 0, 0]} if setting(network, "span") else {}
    with Masks().applied(), autocast(setting(recipe, "precision")), kept_bytes(model) as kept:
        model(x, torch.zeros(size), **known)
    return sum(kept.values())


def _channels_last(model):
    """A network with its weights in the order of a training run's: `Module.to` for fake tensors,
    which cannot be exchanged in place."""
    for part in model.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.ndim == 4:
                laid = weight.detach().to(memory_format=torch.channels_last)
                part._parameters[name] = torch.nn.Parameter(laid)
    return model


def autocast(precision):
    """As `device.precision`, on the CPU."""
    half = HALF.get(precision)
    return torch.autocast("cpu", half) if half else contextlib.nullcontext()


@contextlib.contextmanager
def kept_bytes(model):
    """Yields {storage: bytes} of all that autograd saves in the block, each storage once, beside
    the weights of a model."""
    weights = {_place(weight) for weight in model.parameters()}
    kept, alive = {}, []

    def pack(tensor):
        if _place(tensor) not in weights:
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
            alive.append(tensor)  # so that no other storage takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _place(tensor):
    return tensor.untyped_storage()._cdata
