"""Files of EDM2 and of ECT's imgnet branch: read to the same D(x, sigma), and never run."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ect.cli import main
from ect.models.build import from_description
from ect.models.importers import edm, read
from tests.helpers.checkpoints import Persistent
from tests.helpers.edm2 import edm2_d, layer, precond, vae_encoder

NETS = {
    "pixels": {},
    "no labels": {"classes": 0},
    "deep": {"multipliers": (1, 2, 3), "count": 2, "attention": (8, 4)},
    "narrow": {"channels": 32, "multipliers": (1, 1), "attention": ()},
    "latents": {"depth": 4},
    "ect": {"ect": True},
}
SIGMA = torch.tensor([0.002, 0.05, 0.5, 3.0, 20.0, 80.0])


def file_of(name):
    """What a file holds: EDM2's have more than ECT's."""
    torch.manual_seed(0)
    net = precond(**NETS[name])
    encoder = vae_encoder() if name == "latents" else Persistent("StandardRGBEncoder")
    more = {} if name == "ect" else {"encoder": encoder, "dataset_kwargs": {}, "loss_fn": None}
    return net, more | {"ema": net}


@pytest.mark.parametrize("name", NETS)
def test_an_imported_network_computes_edm2s_denoiser(written, name):
    """In fp32, from weights and gains that are stored as float16."""
    net, content = file_of(name)
    weights, about = read("edm", written(content))
    f, _, about = from_description(weights, about)
    classes = net.state["label_dim"]
    label = torch.arange(len(SIGMA)) % classes if classes else None
    x = torch.randn(len(SIGMA), *about["shape"]) * (1 + SIGMA[:, None, None, None])
    cases = [(None, torch.zeros(1, classes))]
    cases += [(label, functional.one_hot(label, classes).float())] if classes else []
    found = []
    with torch.no_grad():
        for given, hot in cases:
            expected = edm2_d(net, x, SIGMA, hot)
            found.append(f.conditioned_on(given)(x, SIGMA))
            torch.testing.assert_close(found[-1], expected, rtol=0, atol=1e-5)
            skipped = x * 0.25 / (0.25 + SIGMA[:, None, None, None] ** 2)
            assert (expected - skipped)[2:].abs().amax((1, 2, 3)).min() > 0.05  # F takes part
    assert classes == 0 or not torch.allclose(*found, atol=1e-3)


def test_about_describes_the_network_and_its_images(written):
    _, about = edm.read(written(file_of("deep")[1]))
    assert about["network"] == {
        "architecture": "edm2", "channels": 64, "multipliers": [1, 2, 3], "blocks": 2,
        "attention": [8, 4], "classes": 5,
    }  # fmt: skip
    assert about["shape"] == [3, 16, 16] and about["sd"] == 0.5 and "latents" not in about
    black, white = ((pixel - about["shift"]) * about["scale"] for pixel in (0, 255))
    assert (black, white) == (-1, 1)


def test_a_model_of_latents_says_so_and_draws_no_images(written, tmp_path, capsys):
    path, out = written(file_of("latents")[1]), tmp_path / "model.safetensors"
    assert main.main(["import-model", "edm", str(path), "--out", str(out)]) == 0
    _, about = edm.read(path)
    scale = np.linspace(0.1, 0.2, 4, dtype=np.float32).tolist()
    assert about["latents"] == {"scale": scale, "shift": [-one for one in scale]}
    assert about["shape"] == [4, 16, 16]
    drawing = '{"kind": "multistep", "options": {"times": []}, "images": 2, "batch": 2, "seed": 0}'
    words = ["sample", drawing, "--model", str(out), "--out", str(tmp_path / "drawn")]
    assert main.main(words) == 1
    assert "found one of a VAE's latents; allowed: one of pixels" in capsys.readouterr().err


def options(net, **arguments):
    net.state["_modules"]["unet"].state["_init_kwargs"].update(arguments)


DAMAGE = {
    "class": (lambda net: setattr(net, "kind", "Other"), "class at 'ema': found 'Other'"),
    "part": (lambda net: net.state["_modules"].update(more=layer(1, 1)), "a part more"),
    "network": (
        lambda net: setattr(net.state["_modules"]["unet"], "kind", "Net"),
        "network: found 'Net'; allowed: 'UNet'",
    ),
    "argument": (lambda net: options(net, gates=2), "found gates"),
    "balance": (lambda net: options(net, res_balance=0.5), "res_balance: found 0.5; allowed: 0.3"),
    "embedding": (lambda net: options(net, channel_mult_emb=4), "channel_mult_emb: found 4"),
    "blocks": (lambda net: options(net, num_blocks=2), "weights: found"),
    "text": (lambda net: options(net, num_blocks="2"), "num_blocks: found '2'; allowed: a whole"),
    "labels": (lambda net: options(net, label_dim=0), "embedding.label"),
    "multipliers": (lambda net: options(net, channel_mult=[1, 2, 2]), "weight"),
    "widths": (
        lambda net: options(net, model_channels=200),
        "network.channels: found 200, a layer of 400; allowed: widths that",
    ),
    "sides": (
        lambda net: options(net, img_resolution=15),
        "shape: found 15 x 15; allowed: squares",
    ),
}


@pytest.mark.parametrize("damage, said", DAMAGE.values(), ids=DAMAGE)
def test_another_network_is_refused_in_one_line(written, damage, said):
    net, content = file_of("pixels")
    damage(net)
    with pytest.raises(ValueError, match=r"net\.pkl: .*found .*; allowed: ") as refusal:
        edm.read(written(content))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


ENCODERS = {
    "other": (Persistent("OtherEncoder"), "encoder: found 'OtherEncoder'"),
    "text": ("vae", "encoder: found 'str'"),
    "channels": (vae_encoder(3), "encoder.scale: found 3 numbers; allowed: 4 float32"),
    "float64": (
        Persistent("StabilityVAEEncoder", scale=np.ones(4), bias=np.ones(4)),
        "encoder.scale: found no such numbers",
    ),
    "objects": (
        Persistent("StabilityVAEEncoder", scale=np.array([print] * 4), bias=np.ones(4)),
        "name in the pickle: found builtins.print",
    ),
    "nan": (
        Persistent(
            "StabilityVAEEncoder", scale=np.full(4, np.nan, "f4"), bias=np.zeros(4, np.float32)
        ),
        "latents: found {'scale': [nan",
    ),
}


@pytest.mark.parametrize("encoder, said", ENCODERS.values(), ids=ENCODERS)
def test_another_encoder_is_refused(written, encoder, said):
    content = file_of("latents")[1] | {"encoder": encoder}
    with pytest.raises(ValueError, match=r"net\.pkl: .*found .*; allowed: ") as refusal:
        edm.read(written(content))
    assert said in str(refusal.value)
