"""LPIPS as the distance of f to its target: with stand-in weights, narrower than VGG-16's."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.models import vgg16

from ect.config import missing
from ect.config.config import Config, ConfigError
from ect.networks.lpips import BLOCKS, Lpips
from ect.runtime.record import digest
from ect.study import jobs
from ect.study import settings as study_settings
from ect.training import distances, train
from tests.helpers import configs
from tests.helpers.runs import TUNE, changed, contents

UNIT = {"shift": 127.5, "scale": 1 / 127.5}
SMALL = (3, 4, 4, 5, 5)


def standing_in(widths=SMALL, seed=0, **pixels):
    """LPIPS of random weights; those of the differences are positive, as the published ones."""
    torch.manual_seed(seed)
    network = Lpips(widths, **(pixels or UNIT))
    for index in range(5):
        network.get_submodule(f"lin{index}.model.1").weight.abs_()
    return network


def images(seed, count=3, channels=3, side=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, side, side, generator=generator) * 2 - 1


def written_out(network, a, b):
    """The sum over blocks, layer by layer."""
    weights, features, total = network.state_dict(), [], 0.0
    for x in (a, b):
        x = functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
        mean, sd = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = (x - mean.view(1, 3, 1, 1)) / sd.view(1, 3, 1, 1)
        found = []
        for index, block in enumerate(BLOCKS):
            if index:
                x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
            for layer in block:
                kernel, bias = (weights[f"features.{layer}.{k}"] for k in ("weight", "bias"))
                x = functional.conv2d(x, kernel, bias, padding=1).clamp(min=0)
            found.append(x)
        features.append(found)
    for index, (u, v) in enumerate(zip(*features)):
        u, v = (w / (w.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for w in (u, v))
        channel = weights[f"lin{index}.model.1.weight"].view(1, -1, 1, 1)
        total = total + ((u - v) ** 2 * channel).sum(1).mean((1, 2))
    return total


def test_it_is_the_formula_written_out():
    network, (a, b) = standing_in(), (images(0), images(1))
    found = network(a, b)
    assert found.shape == (3,) and (found > 0).all()
    torch.testing.assert_close(found, written_out(network, a, b), rtol=1e-4, atol=1e-7)


def test_equal_images_are_at_0_and_it_is_symmetric():
    network, (a, b) = standing_in(), (images(0), images(1))
    assert torch.equal(network(a, a), torch.zeros(3))
    torch.testing.assert_close(network(a, b), network(b, a))
    assert (network(a, a + 0.01 * (b - a)) < network(a, b)).all()


def test_the_blocks_are_those_of_torchvisions_network():
    """Names, shapes and features after the last ReLU of each block; a large image as it is."""
    torch.manual_seed(0)
    theirs = vgg16(weights=None).features.eval()
    ours = Lpips((64, 128, 256, 512, 512), **UNIT)
    weights = {f"features.{k}": v for k, v in theirs.state_dict().items()}
    assert ours.load_state_dict(weights, strict=False).unexpected_keys == []
    assert 4 * sum(p.numel() for p in ours.parameters()) == missing.LPIPS_SIZE
    x = images(0, 1, side=256)
    with torch.no_grad():
        found, y, taps = list(ours.blocks(x)), ours.pixels(x), []
        assert y.shape[-1] == 256
        for index, layer in enumerate(theirs):
            y = layer(y)
            if index in (3, 8, 15, 22, 29):
                taps.append(y / y.norm(dim=1, keepdim=True).clamp(min=1e-10))
    for one, other in zip(found, taps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_grey_images_are_read_as_three_equal_channels_and_pixels_in_any_range():
    network, (a, b) = standing_in(), (images(0, channels=1), images(1, channels=1))
    grey = network(a, b)
    torch.testing.assert_close(grey, network(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))
    other = standing_in(shift=100.0, scale=0.01)
    moved = [((x * 127.5 + 127.5) - 100.0) * 0.01 for x in (a, b)]
    torch.testing.assert_close(other(*moved), grey, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dead", [False, True])
def test_the_gradient_is_finite_and_reaches_the_first_image_alone(dead):
    """Also where all features of a block are 0."""
    network = standing_in()
    if dead:
        network.features["17"].bias.fill_(-1e3)
    a, b = images(0).requires_grad_(), images(1)
    network(a, b).sum().backward()
    assert a.grad.isfinite().all() and a.grad.abs().max() > 0
    assert all(p.grad is None for p in network.parameters())


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lpips.safetensors"
    save_file(standing_in((1, 1, 1, 1, 1), seed=4).state_dict(), path)
    return path


def test_a_file_of_other_tensors_is_one_line(weights, tmp_path):
    assert distances.read_lpips(weights, **UNIT)(images(0), images(1)).shape == (3,)
    lacking = standing_in().state_dict()
    del lacking["lin2.model.1.weight"]
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(ValueError, match=r"lacking\.safetensors: .*missing: lin2\.model"):
        distances.read_lpips(tmp_path / "lacking.safetensors", **UNIT)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: .*missing: features\.0"):
        distances.read_lpips(tmp_path / "other.safetensors", **UNIT)
    (tmp_path / "torn.safetensors").write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"torn\.safetensors: not readable as safetensors"):
        distances.read_lpips(tmp_path / "torn.safetensors", **UNIT)


def lpips_run(path):
    return changed(
        TUNE,
        network={"channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
        recipe__batch=250,
        recipe__weight="uniform",
        recipe__distance={"kind": "lpips", "c": 0.0, "path": str(path)},
        schedule={
            "map": "ct", "options": {"s0": 2, "s1": 9, "low": 0.002, "high": 80.0}, "clock": "noise"
        },
        target="ema",
        recipe__mu0=0.9,
    )  # fmt: skip


def test_a_run_is_its_weights_of_lpips_too(weights, digits_file, tmp_path, monkeypatch):
    monkeypatch.setattr("ect.networks.lpips.SIDE", 32)  # 49 times less to compute
    for name in ("a", "b"):
        train.run(lpips_run(weights), digits_file, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["inputs"][str(weights)] == digest(weights)
    save_file(standing_in((1, 1, 1, 1, 1), seed=5).state_dict(), tmp_path / "o.safetensors")
    train.run(lpips_run(tmp_path / "o.safetensors"), digits_file, tmp_path / "c")
    one, other = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("a", "c"))
    assert one != other


def study(**distance):
    config = yaml.safe_load(yaml.safe_dump(configs.DEFAULT))
    config["tune"]["ect_slope"] |= {"distance": {"kind": "lpips"} | distance, "weight": "uniform"}
    return config


def test_the_plan_names_the_weights_that_are_missing(tmp_path):
    path = tmp_path / "lpips.safetensors"
    config = Config.read(study(path=str(path)))
    needed = [one for one in missing.missing(config) if one.key == "tune.ect_slope.distance.path"]
    assert [one.path for one in needed] == [str(path)] and "lpips.py" in missing.told(needed[0])
    found = {
        model.recipe: study_settings.train(config, model)["recipe"]["distance"]
        for model in config.all_tuned()
    }
    assert found["ect_slope"] == {"kind": "lpips", "c": 0.0, "path": str(path)}
    assert set(found["ect"]) == {"kind", "c"}
    path.write_bytes(b"")
    assert not missing.missing(config)
    plain = [job.rule for job in jobs.jobs(Config.read(configs.DEFAULT))]
    asked = [job.rule for job in jobs.jobs(config)]
    assert sorted([*asked, "perfect_loss"]) == sorted(plain)  # it is not known of Gaussian data


def test_what_does_not_fit_is_told_by_the_config():
    for distance, words in (
        ({}, "path is None with kind 'lpips'; allowed: with a path"),
        ({"path": "vgg.pth"}, r"path is 'vgg\.pth'; allowed: a \.safetensors file"),
        ({"path": "a.safetensors", "kind": "huber"}, "with kind 'huber'; allowed: kind 'lpips'"),
    ):
        with pytest.raises(ConfigError, match=words):
            Config.read(study(**distance))
    config = study(path="a.safetensors")
    config["pretrain"]["ve"]["distance"] = {"kind": "lpips", "path": "a.safetensors"}
    with pytest.raises(ConfigError, match=r"pretrain\.ve.* 'lpips'; allowed: in tune only"):
        Config.read(config)
