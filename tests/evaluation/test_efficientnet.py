"""EfficientNet-Lite0: its structure and input by laws; against the package of its weights, and that
of their own module, where these are installed."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from ect.cli.main import main
from ect.config import evaluation
from ect.config.config import Config
from ect.config.missing import missing, require, told
from ect.data import file
from ect.evaluation import efficientnet, evaluate, features
from ect.models.importers.state_dict import tensors_in
from ect.report.gather import metric_name
from ect.runtime import record
from tests.helpers.configs import changed

SPACE = {"extractor": "efficientnet", "inception_mode": "clean", "kd_subsets": 2}
PUBLISHED = evaluation.efficientnet_file()
installed = pytest.mark.skipif(PUBLISHED is None, reason=f"without {evaluation.EFFICIENTNET}")


def pixels(count=3, channels=3, size=32):
    shape = (count, size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def dataset(path):
    """A dataset file of seven training images and five held-out ones."""
    about = {"classes": None, "shift": 127.5, "scale": 1 / 127.5, "sd": 0.5}
    with file.writing(path, about) as writer:
        writer.add("train", pixels(7), [0] * 7)
        writer.add("test", pixels(12)[7:], [0] * 5)


def made_up():
    """Tensors with the names and shapes of the file, and values that keep the maps' scale."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    expected = efficientnet.EfficientNet().state_dict()
    for name, value in expected.items():
        drawn = torch.randn(value.shape, generator=generator)
        fan_in = drawn[0].numel() if drawn.ndim == 4 else 1
        tensors[in_the_file(name)] = (
            torch.tensor(1) if name.endswith("tracked")
            else 0.5 + drawn.abs() if name.endswith("var")
            else drawn * (2 / fan_in) ** 0.5 if drawn.ndim == 4
            else 0.1 * drawn if name.endswith(("bias", "mean"))
            else 1 + 0.1 * drawn
        )  # fmt: skip
    return tensors


def in_the_file(name):
    """`blocks.0.bn1.bias` as `_blocks.0._bn1.bias`."""
    *parts, last = name.split(".")
    return ".".join([part if part.isdigit() else f"_{part}" for part in parts] + [last])


def test_it_has_the_parameters_and_layers_of_its_definition():
    """With the layer of 1,000 classes 4.65 million parameters and 385 million products an image
    (its authors print 4.7M and, with other operations, 407M), in 16 blocks."""
    network = efficientnet.EfficientNet().eval()
    classes = 1000 * (efficientnet.WIDTH + 1)
    assert sum(p.numel() for p in network.parameters()) + classes == 4_652_008
    assert len(network.blocks) == 16 and sum(block.residual for block in network.blocks) == 9
    products = []

    def count(layer, _, out):
        products.append(layer.weight[0].numel() * out[0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1280)
    assert len(products) == 49 and round((sum(products) + classes) / 1e6) == 385


@pytest.mark.parametrize("kernel, stride", [(3, 1), (5, 1), (3, 2), (5, 2), (1, 1)])
def test_padding_is_that_of_tensorflow(kernel, stride):
    """`SAME`: ceil(side / stride) places; of an odd number of rows, one more comes last."""
    layer, x = efficientnet.Convolution(2, 3, kernel, stride), torch.randn(1, 2, 12, 12)
    places = -(-12 // stride)
    total = max((places - 1) * stride + kernel - 12, 0)
    around = [total // 2, total - total // 2] * 2
    wanted = functional.conv2d(functional.pad(x, around), layer.weight, stride=stride)
    found = layer(x)
    assert found.shape[2:] == (places, places) and torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("size", [8, 32, 300])
def test_images_are_resized_by_pillows_bicubic_filter(size):
    (image,) = pixels(1, size=size)
    planes = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    wanted = np.stack([p.resize((224, 224), Image.Resampling.BICUBIC) for p in planes])
    found = efficientnet.resized(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert np.allclose(found[0], wanted, atol=0.01)  # of 255


@torch.no_grad()
def test_outputs_are_those_of_the_packages_own_module():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    tensors = made_up()
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    expected = theirs.state_dict()
    assert {n for n in expected if not n.startswith("_fc")} == set(tensors)
    theirs.load_state_dict(tensors, strict=False)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    wanted = theirs.extract_features(x).mean((2, 3))
    found = efficientnet.network(tensors)(x)
    assert found.std() > 0.1 and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


@installed
def test_the_file_is_the_published_one_and_fits():
    assert hashlib.sha256(PUBLISHED.read_bytes()).hexdigest() == efficientnet.SHA256
    tensors = tensors_in(efficientnet.weights_file())
    assert {n for n in tensors if not n.startswith("_fc")} == set(made_up())
    efficientnet.network(tensors)


@installed
def test_grey_images_are_coloured_ones_of_equal_channels():
    name, extract = evaluate.extractor(SPACE)
    grey = pixels(2, channels=1)
    found = features.of_images(extract, grey)
    assert name == efficientnet.SPACE and found.shape == (2, 1280)
    assert np.allclose(found, features.of_images(extract, grey.repeat(3, 3)), atol=1e-5)


@installed
def test_distances_by_the_verbs_and_what_their_records_say(tmp_path):
    data, reference, out = (tmp_path / n for n in ("d.safetensors", "r.safetensors", "m.json"))
    dataset(data)
    words = ["extract", json.dumps({"features": SPACE}), "--data", data, "--out", reference]
    assert main([str(word) for word in words]) == 0
    settings = json.dumps({"features": SPACE, "cell": {"floor": True}, "metrics": ["fd"]})
    words = ["evaluate", settings, "--data", data, "--reference", reference, "--out", out]
    assert main([str(word) for word in words]) == 0
    found = json.loads(out.read_text())
    assert found["features"] == efficientnet.SPACE and found["fd"] > 0
    for path in (reference, out):
        assert efficientnet.SHA256 in record.of(path)["inputs"].values()


def test_its_distance_has_its_name():
    assert metric_name(efficientnet.SPACE) == "FD (EfficientNet-Lite0)"
    assert metric_name(efficientnet.SPACE, "kd") == "KD (EfficientNet-Lite0)"


@pytest.fixture
def without(monkeypatch):
    """As where the package is not installed."""
    monkeypatch.setattr(evaluation.importlib.util, "find_spec", lambda name: None)


def test_without_the_package_a_job_says_in_a_line_what_to_install(without, tmp_path, capsys):
    data, out = tmp_path / "d.safetensors", str(tmp_path / "r.safetensors")
    dataset(data)
    words = ["extract", json.dumps({"features": SPACE}), "--data", str(data), "--out", out]
    assert main(words) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "'efficientnet'" in said and said.endswith(f"`pip install {evaluation.EFFICIENTNET}`")


def test_without_the_package_a_plan_lists_it_and_a_run_ends(without):
    study = Config.read(changed("features", {"extractor": "efficientnet"}))
    (one,) = missing(study)
    assert f"pip install {evaluation.EFFICIENTNET}" in told(one) and "17.4 MB" in told(one)
    with pytest.raises(ValueError, match="pip install") as caught:
        require(study)
    assert "\n" not in str(caught.value)
    require(study, packages=False)  # where jobs have environments of their own


def test_other_bytes_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "other.pth"
    path.write_bytes(b"other weights")
    monkeypatch.setattr(evaluation, "efficientnet_file", lambda: path)
    with pytest.raises(ValueError, match=r"other.pth: found sha256 .*; allowed: 579344248a93"):
        efficientnet.weights_file()
    path.unlink()
    with pytest.raises(ValueError, match=r"other.pth: found no such file; allowed"):
        efficientnet.weights_file()
