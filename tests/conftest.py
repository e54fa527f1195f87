"""What the tests share: one thread, the CPU, a small dataset, a small network, a small run."""

import pytest
import torch
from hypothesis import settings as hypothesis_settings

from ect import data, machine
from ect.network import UNet

torch.set_num_threads(1)
hypothesis_settings.register_profile("laws", deadline=None, max_examples=50, derandomize=True)
hypothesis_settings.load_profile("laws")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Bits repeat on the CPU, so the laws are checked there."""
    monkeypatch.setattr(machine, "device", lambda: torch.device("cpu"))


@pytest.fixture(scope="session")
def write_digits(tmp_path_factory):
    """Writes a dataset file of 297 digits to train on, in the range that `normalize` gives."""

    def write(normalize):
        path = tmp_path_factory.mktemp("data") / "digits.safetensors"
        settings = {"source": "digits", "normalize": normalize, "held_out": 1500, "split_seed": 0}
        data.prepare(settings, path)
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
