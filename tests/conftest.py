"""What the tests share: one thread, the CPU, a small dataset, a small network, a small run."""

import faulthandler
import sys
import time
import warnings

import pytest
import torch
from hypothesis import settings as hypothesis_settings
from torch import nn
from torch.nn import functional

from ect.config.evaluation import INCEPTION_FILE
from ect.data import prepare
from ect.networks.unet import UNet
from ect.runtime import device

pytest_plugins = ["tests.helpers.checkpoints", "tests.helpers.work"]  # its fixtures
torch.set_num_threads(1)
hypothesis_settings.register_profile("laws", deadline=None, max_examples=50, derandomize=True)
hypothesis_settings.load_profile("laws")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where runs compute: cpu or cuda")


def pytest_collection_modifyitems(items):
    """Files that wait for SLURM first, then those that run Snakemake: the last file is short."""
    marks = ("pipeline", "slurm")
    first = {item.path: mark for mark in marks for item in items if item.get_closest_marker(mark)}
    items.sort(key=lambda item: ("slurm", "pipeline", None).index(first.get(item.path)))


@pytest.fixture(autouse=True)
def on_the_device(request, monkeypatch):
    """Tests run on the CPU, on every machine; with --device cuda those of whole runs (training,
    resuming, drawing, features) run on a GPU."""
    asked = request.config.getoption("--device")
    if asked == "cpu":
        monkeypatch.setattr(device, "current", lambda: torch.device("cpu"))
    assert device.current().type == asked


@pytest.fixture
def soon():
    """Fails a test that takes a minute of CPU time: what it guards against takes hours. What is
    stuck in C cannot be interrupted; it ends the whole run."""
    began = time.process_time()
    faulthandler.dump_traceback_later(300, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
    assert time.process_time() - began < 60


@pytest.fixture(scope="session")
def write_digits(tmp_path_factory):
    """Writes a dataset file of 297 digits to train on, in the range that `normalize` gives."""

    def write(normalize):
        path = tmp_path_factory.mktemp("data") / "digits.safetensors"
        settings = {"source": "digits", "normalize": normalize, "held_out": 1500, "split_seed": 0}
        prepare.run(settings, path)
        return path

    return write


@pytest.fixture(scope="session")
def digits_file(write_digits):
    return write_digits("standard")


@pytest.fixture
def make_unet():
    """A small U-Net for 8x8x1 whose weights are all perturbed: at its start F is almost 0."""

    def make(dropout=0.0, dtype=torch.float32):
        torch.manual_seed(0)
        network = UNet(8, 1, 8, [1, 2], 1, [4], dropout)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        return network.to(dtype)

    return make


@pytest.fixture
def draw():
    """Standard normal float64 images (B, 1, 8, 8), named by a seed."""

    def make(seed, count=4):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64)

    return make


class StandIn(nn.Module):
    """A network with the interface of the published Inception and random weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(16), nn.Tanh(), nn.Flatten()
        )  # fmt: skip
        self.output = nn.Linear(2048, 1008)

    def forward(
        self,
        img: torch.Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ):
        x = functional.interpolate(img.to(torch.float32), (299, 299), mode="bilinear")
        features = self.layers((x - 128) / 128)
        if return_features:
            return features
        logits = functional.linear(features, self.output.weight)
        return torch.softmax(logits if no_output_bias else logits + self.output.bias, dim=1)


@pytest.fixture(scope="session")
def inception_folder(tmp_path_factory):
    """A folder for `inception_path`: the stand-in as TorchScript, under the published name."""
    folder = tmp_path_factory.mktemp("inception")
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(StandIn()).save(str(folder / INCEPTION_FILE))
    return folder
