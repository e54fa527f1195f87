"""Tuning from a model trained elsewhere: its file, its own f, and what the dataset must be."""

import pytest
import torch

from ect.cli import main
from ect.models import build
from ect.runtime import checkpoint
from ect.training import train
from tests.helpers.checkpoints import Persistent, edm_d, unet
from tests.helpers.starts import settings


@pytest.fixture(scope="module")
def unit_digits(write_digits):
    """Digits in [-1, 1], the range of EDM's networks."""
    return write_digits("unit")


@pytest.fixture
def imported(written, tmp_path):
    """Writes an EDM file of an 8x8x1 network, imports it: (the objects in the file, model path)."""

    def make(wrapper):
        torch.manual_seed(0)
        options = {"EDMPrecond": {"sigma_data": 0.5}, "VEPrecond": {}}
        options["VPPrecond"] = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}
        net = Persistent(wrapper, {"model": unet("ddpmpp", 8, 1, 0)}, **options[wrapper])
        file, out = written({"ema": net}), tmp_path / "start" / "model.safetensors"
        assert main.main(["import-model", "edm", str(file), "--out", str(out)]) == 0
        return net, out

    return make


@pytest.mark.parametrize("wrapper", ["EDMPrecond", "VPPrecond", "VEPrecond"])
def test_an_imported_model_is_edms_denoiser_and_can_be_tuned(
    wrapper, imported, unit_digits, tmp_path
):
    net, model = imported(wrapper)
    f, process, _ = build.load_model(model)
    y, sigma = torch.randn(3, 1, 8, 8), torch.tensor([0.05, 0.7, 20.0])
    t = process.time(sigma)
    alpha = process.coefficients(t)[0].view(-1, 1, 1, 1)
    wanted = edm_d(net, y, sigma, None, "ddpmpp")
    size = 1 + sigma.view(-1, 1, 1, 1)
    # 1e-5 holds at equal t (test_importers); here t is rounded to float32; the network gets 999 t
    torch.testing.assert_close(f(alpha * y, t) / size, wanted / size, rtol=0, atol=5e-5)

    train.run(settings("euler"), unit_digits, tmp_path / "tuned", init=model)
    weights, about = checkpoint.load(tmp_path / "tuned" / "model.safetensors")
    before, described = checkpoint.load(model)
    assert about == described
    assert any(not torch.equal(weights[name], before[name]) for name in before)


def test_an_imported_model_needs_the_images_it_was_made_for(imported, digits_file, tmp_path):
    with pytest.raises(ValueError, match=r"127\.5.*normalize: unit"):
        train.run(settings(), digits_file, tmp_path / "tuned", init=imported("EDMPrecond")[1])
