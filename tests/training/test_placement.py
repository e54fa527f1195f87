"""In a step and in sampling all tensors that meet are on the GPU, and a step does not wait for it.

Checked without a GPU, on torch's fake tensors: they have a device and no values, and raise if two
devices meet or a value decides what is computed.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ect import objective as objective_module
from ect import sampler
from ect.data.batches import Images
from ect.models import build
from ect.networks.dropout import Masks
from ect.runtime import device
from ect.training import loop, parts
from ect.training.state import State
from tests.helpers.runs import TUNE, changed

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.11", reason="fake tensors of older versions need a GPU to be on one"
)
FLOW = {"process": "flow", "parameterization": "velocity"}
BETAS = {"schedule": "linear", "start": 1e-4, "end": 0.02, "steps": 1000}
FLAT = {"recipe__weight": "uniform", "recipe__distance": {"kind": "squared", "c": 0.0}}


def mapped(name, **options):
    return {"schedule": {"map": name, "options": options, "clock": "noise"}}


CASES = {
    "pretrain": mapped("zero"),
    "sigmoid": {},
    "ict": mapped("ict", s0=10, s1=20, low=0.002, high=80.0),
    "continuous": mapped("continuous", warmup=0.5, c=0.1) | FLAT,
    "meanflow": mapped("meanflow", pairs=0.75, p=1.0, c=1e-3) | FLAT | FLOW | {"network__span": 1},
    "flow": FLOW,
    "clock": FLOW | {"schedule__clock": "time"},
    "vp_linear": {"process": "vp_linear"},
    "vp_cosine": {"process": "vp_cosine"},
    "tabulated": {"process": "tabulated", "betas": BETAS},
    "ecd": {"target": "heun"},
    "radam": {"recipe__optimizer__name": "radam"},
    "classes": {"network__classes": 10},
    "microbatch": {"recipe__microbatch": 30},
    "adm": {"network__architecture": "adm", "network__channels": 64},
    "ncsnpp": {"network__architecture": "ncsnpp", "network__embedding": "fourier"},
}
SOLVERS = {
    "multistep": {"times": [0.8]},
    "euler": {"steps": 3},
    "heun": {"steps": 3},
    "dpm_solver": {"steps": 3},
}


def moved(module, device, **options):
    """`Module.to` for fake parameters, which cannot be exchanged in place."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(value.data.to(device), value.requires_grad)
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else value.to(device)
    return module


class NoCopies(TorchDispatchMode):
    """Raises if a tensor is copied between devices, except by `device.to_device`: that would wait.
    A CPU tensor without dimensions is an argument of a kernel, not a copy."""

    sending = False

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        tensors = (x for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor))
        if {"cpu", "cuda"} <= {x.device.type for x in tensors if x.ndim} and not self.sending:
            raise RuntimeError(f"{operation} waits for another device")
        return found


def sent(tensor, place=None):
    """The only copy that does not wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoCopies, "sending", True)
        return tensor.to("cuda")


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A GPU in name only; what needs a real one, or the value of a tensor, is replaced."""
    levels, some = sampler.grid(3), torch.arange(8)
    make, tabulated = build.make_process, build.make_process(CASES["tabulated"])

    def make_process(settings):
        return tabulated if settings["process"] == "tabulated" else make(settings)

    def needed(r, unit):
        assert r.device.type == "cpu"  # where reading a value does not wait
        return some

    def of(masks, indices):
        assert indices.device.type == "cpu"
        return masks._replace(rows=masks.rows[: len(indices)])

    monkeypatch.setattr(objective_module, "needed", needed)
    monkeypatch.setattr(Masks, "of", of)
    monkeypatch.setattr(build, "make_process", make_process)
    monkeypatch.setattr(build, "_require_numbers", lambda *given: None)
    monkeypatch.setattr(parts, "make_process", make_process)
    monkeypatch.setattr(device, "current", lambda: torch.device("cuda"))
    monkeypatch.setattr(device, "to_device", sent)
    monkeypatch.setattr(sampler, "grid", lambda *options: levels)
    monkeypatch.setattr(nn.Module, "to", moved)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield monkeypatch


def begun(settings, images, patch):
    """(state, objective, f) of a run, whose backward pass gives a gradient to every weight."""

    def backward(loss):
        for weight in state.network.parameters():
            weight.grad = torch.zeros_like(weight)

    state, about = State(settings, images), build.description(settings, images)
    teacher = (
        None if settings["target"] == "own" else build.from_description(state.average, about)[0]
    )
    objective = parts.make_objective(settings, images.sd, teacher)
    patch.setattr(torch.Tensor, "backward", backward)
    return state, objective, build.make_consistency(state.network, objective.process, about)


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_on_the_gpu(case, digits_file, on_a_gpu):
    settings, images = changed(TUNE, **CASES[case]), Images(digits_file)
    state, objective, f = begun(settings, images, on_a_gpu)
    terms, fine, _ = loop.step(state, settings, images, objective, f, 1000)  # fills tables
    with NoCopies():
        terms, fine, _ = loop.step(state, settings, images, objective, f, 1000)
        state.meter.add(terms, fine, state.seen)
    kept = {k: v for k, v in state.tensors().items() if not k.endswith("step")}
    for value in (*terms, fine, *state.meter.tensors().values(), *kept.values()):
        assert value.device.type == "cuda"


def test_snapshots_wait_in_the_hosts_memory(digits_file, on_a_gpu):
    state = State(TUNE, Images(digits_file))
    state.keep_snapshot()
    assert {value.device.type for value in state.average.values()} == {"cuda"}
    assert {value.device.type for value in state.snapshot_tensors().values()} == {"cpu"}


def test_a_snapshot_is_a_copy(digits_file):
    state = State(TUNE, Images(digits_file))
    state.keep_snapshot()
    before = {key: value.clone() for key, value in state.average.items()}
    for value in state.average.values():
        value.add_(1)
    assert all((state.snapshots[0][key] == value).all() for key, value in before.items())


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("case", ["sigmoid", "flow", "vp_linear", "vp_cosine", "classes"])
def test_a_drawing_is_on_the_gpu(kind, case, digits_file, on_a_gpu):
    settings, images = changed(TUNE, **CASES[case]), Images(digits_file)
    state, about = State(settings, images), build.description(settings, images)
    f, process, about = build.from_description(state.average, about)
    if case == "classes":
        f = f.conditioned_on(device.to_device(torch.zeros(4, dtype=torch.int64)))
    with torch.no_grad():
        eps = device.to_device(sampler.noise(range(4), 2, about["shape"]))
        assert sampler.SAMPLERS[kind](f, process, eps, **SOLVERS[kind]).device.type == "cuda"


def test_what_stays_behind_is_noticed(digits_file, on_a_gpu):
    images = Images(digits_file)
    state, objective, f = begun(TUNE, images, on_a_gpu)
    on_a_gpu.setattr(device, "to_device", lambda tensor, place=None: tensor)
    with pytest.raises(RuntimeError, match="device"):
        loop.step(state, TUNE, images, objective, f, 1000)


@pytest.mark.parametrize("name", ["cpu", "tolist", "any"])
def test_waiting_is_noticed(name, digits_file, on_a_gpu):
    """A distance that reads a value."""
    images = Images(digits_file)
    state, objective, f = begun(TUNE, images, on_a_gpu)
    distance = objective.distance

    def looking(a, b):
        bool(getattr(distance(a, b), name)())
        return distance(a, b)

    objective.distance = looking
    with NoCopies(), pytest.raises(Exception, match=r"waits for|aten\.|data-dependent"):
        loop.step(state, TUNE, images, objective, f, 1000)
