"""EDM's and ECT's checkpoints: read to the same D(x, sigma), and never run.

The files are made here, of objects that reduce as EDM's do; D is evaluated from the tensors in
the file by the functions below, which follow EDM's names and know nothing of the U-Net.
"""

import io
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from ect.models.importers import edm
from ect.networks.unet import UNet
from tests.helpers.checkpoints import MODELS, Call, Persistent, edm_d, edm_f, unet

WRAPPERS = {
    "EDMPrecond": {"sigma_data": 0.6, "sigma_min": 0},
    "ECMPrecond": {"sigma_data": 0.5, "sigma_min": 0.003},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000},
    "VEPrecond": {},
}


def network(arrangement, wrapper="EDMPrecond", classes=0):
    torch.manual_seed(0)
    model = unet(arrangement, 8, 3, classes)
    return Persistent(wrapper, {"model": model}, **WRAPPERS[wrapper], label_dim=classes)


def our_d(f, about, x, sigma, label):
    """D(x, sigma) = f(alpha x, t) from what `about` says, at the process's own time."""
    s, sd = sigma[:, None, None, None], about["sd"]
    t = ((0.01 + 39.8 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
    alpha = (1 + s**2).rsqrt() if about["process"] == "vp_linear" else torch.ones_like(s)
    x_t, spread = alpha * x, alpha * s
    total = (alpha * sd) ** 2 + spread**2
    c_in = {"one": 1.0, "scaled": total.rsqrt()}[about["c_in"]]
    times = {"log_s": sigma.log() / 4, "log_half_s": (sigma / 2).log(), "vp": 999 * t}
    out = f(c_in * x_t, times[about["c_noise"]], label)
    if about["parameterization"] == "noise":
        return x_t / alpha - spread / alpha * out
    return alpha * sd**2 / total * x_t + spread * sd / total.sqrt() * out


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("arrangement", MODELS)
@pytest.mark.parametrize("classes", [0, 5])
def test_an_imported_network_computes_edms_denoiser(written, wrapper, arrangement, classes):
    net = network(arrangement, wrapper, classes)
    weights, about = edm.read(written({"ema": net}))
    f = UNet(8, 3, **about["network"], dropout=0.0).eval()
    f.load_state_dict(weights)
    sigma, label = torch.tensor([0.01, 0.4, 3.0]), torch.tensor([4, 0, 3])
    size = 1 + sigma[:, None, None, None]
    x = torch.randn(3, 3, 8, 8) * size
    cases = [(None, torch.zeros(1, classes))]
    cases += [(label, functional.one_hot(label, classes).float())] if classes else []
    with torch.no_grad():
        for given, hot in cases:
            expected = edm_d(net, x, sigma, hot if classes else None, arrangement) / size
            found = our_d(f, about, x, sigma, given) / size
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
            assert (expected - x / size).abs().amax(dim=(1, 2, 3)).min() > 1e-3  # F takes part


@pytest.mark.parametrize("arrangement", MODELS)
def test_the_layer_that_reads_augmentation_is_kept(written, arrangement):
    net = network(arrangement, classes=5)
    weights, about = edm.read(written({"ema": net}))
    assert about["network"]["augment_labels"] == 9
    f = UNet(8, 3, **about["network"], dropout=0.0).eval()
    f.load_state_dict(weights)
    x, c, hot = torch.randn(3, 3, 8, 8), torch.tensor([-1.0, 0.0, 0.5]), torch.eye(5)[:3]
    moved, model = torch.randn(3, 9), net.state["_modules"]["model"]
    with torch.no_grad():
        expected = edm_f(model, x, c, hot, arrangement, moved)
        found = f(x, c, torch.arange(3), augment=moved)
        plain = f(x, c, torch.arange(3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3


def test_a_network_without_that_layer_has_none(written):
    net = network("ddpmpp")
    del net.state["_modules"]["model"].state["_modules"]["map_augment"]
    change(net, augment_dim=0)
    weights, about = edm.read(written({"ema": net}))
    assert "augment_labels" not in about["network"] and "embedding.augment.weight" not in weights


@pytest.mark.parametrize("arrangement", MODELS)
def test_about_describes_the_network_and_its_images(written, arrangement):
    _, about = edm.read(written({"ema": network(arrangement, classes=5)}))
    assert about["network"]["architecture"] == arrangement
    assert about["network"]["classes"] == 5 and about["shape"] == [3, 8, 8]
    black, white = ((pixel - about["shift"]) * about["scale"] for pixel in (0, 255))
    assert (black, white) == (-1, 1)


def nested(content):
    """The bytes of a file in torch's old format."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize("place", ["top", "beside", "module", "weight", "nested file", "state"])
def test_what_a_file_asks_to_run_does_not_run(written, tmp_path, place):
    ran, net = tmp_path / "ran", network("ddpmpp")
    bad = Call(os.system, f"touch {ran}")
    content = {"ema": net, "loss_fn": bad} if place == "beside" else {"ema": net}
    inner = net.state["_modules"]["model"].state["_modules"]["enc"]._modules["8x8_block0"].state
    if place == "module":
        inner["_modules"]["conv0"].state["_modules"]["more"] = bad
    if place == "weight":
        inner["_modules"]["conv0"].state["_parameters"]["weight"] = bad
    if place == "nested file":
        load = torch.storage._load_from_bytes
        inner["_modules"]["conv0"].state["_parameters"]["weight"] = Call(load, nested(bad))
    if place == "state":
        inner["resample"] = Call(eval, f"open({str(ran)!r}, 'w')")
    path = written(bad if place == "top" else content)
    with pytest.raises(ValueError, match="allowed") as refusal:
        edm.read(path)
    assert str(path) in str(refusal.value) and not ran.exists()
    assert place == "nested file" or "system" in str(refusal.value) or "eval" in str(refusal.value)


def test_the_malicious_file_is_malicious(written, tmp_path):
    """With the plain unpickler it runs; otherwise the test above would show nothing."""
    ran = tmp_path / "ran"
    path = written(Call(os.system, f"touch {ran}"))
    code = f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ran.exists()


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(written, kept):
    path = written({"ema": network("ddpmpp")})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"net\.pkl: pickle: found damaged .* allowed"):
        edm.read(path)


def change(net, **arguments):
    net.state["_modules"]["model"].state["_init_kwargs"].update(arguments)


def versioned(net):
    net.form = {"type": "class", "version": 7}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda net: setattr(net, "kind", "iDDPMPrecond"), "iDDPMPrecond"),
        (lambda net: setattr(net.state["_modules"]["model"], "kind", "Precond"), "Precond"),
        (versioned, "version 6"),
        (lambda net: change(net, decoder_type="skip"), "skip"),
        (lambda net: change(net, encoder_type="residual"), "residual"),
        (lambda net: change(net, channel_mult_emb=3), "channel_mult_emb"),
        (lambda net: change(net, gates=2), "gates"),
        (lambda net: change(net, num_blocks=2), "weights"),
        (lambda net: change(net, channel_mult=[1, 2]), "weight"),
        (lambda net: change(net, label_dim=4), "embedding.label"),
    ],
)
def test_another_network_is_refused(written, damage, said):
    net = network("ddpmpp")
    damage(net)
    with pytest.raises(ValueError, match=r"net\.pkl: .*found .*; allowed: ") as refusal:
        edm.read(written({"ema": net}))
    assert said in str(refusal.value)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
def test_weights_that_are_no_floating_point_numbers_are_refused(written, kind):
    net = network("ddpmpp")
    layer = net.state["_modules"]["model"].state["_modules"]["map_layer0"].state["_parameters"]
    layer["bias"] = layer["bias"].to(kind)
    with pytest.raises(ValueError, match=f"weights: found map_layer0.bias of {kind}; allowed: "):
        edm.read(written({"ema": net}))


@pytest.mark.parametrize("content", [[1, 2], {}, {"ema": 3}, {"net": None}])
def test_a_pickle_without_a_network_is_refused(written, content):
    with pytest.raises(ValueError, match="a dict with a network at 'ema'"):
        edm.read(written(content))


def test_a_tensor_stays_within_its_storage(written):
    net, store = network("ddpmpp"), torch.zeros(4)._typed_storage()
    beyond = Call(torch._utils._rebuild_tensor_v2, store, 0, (99,), (1,), False, {})
    net.state["_modules"]["model"].state["_buffers"]["more"] = beyond
    with pytest.raises(ValueError, match="out of bounds"):
        edm.read(written({"ema": net}))
