"""Published networks, with a stand-in that has Inception's interface: the published weights are not
available, so the tests check what the network is given, not the numbers that it returns."""

import json
import urllib.error

import numpy as np
import pytest
import torch
from cleanfid import downloads_helper
from cleanfid.resize import build_resizer
from PIL import Image
from torchvision import transforms

from ect.cli.main import main
from ect.config.evaluation import INCEPTION_FILE
from ect.data import file
from ect.data.batches import Images
from ect.evaluation import evaluate, features, pretrained
from ect.registry import METRICS


def pixels(count=6, channels=3, size=32):
    shape = (count, size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def network(folder):
    return torch.jit.load(str(folder / INCEPTION_FILE))


def tensor(images):
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


def test_legacy_tensorflow_leaves_the_resizing_to_the_network(inception_folder):
    images = pixels()
    found = features.of_images(pretrained.inception("legacy_tensorflow", inception_folder), images)
    wanted = network(inception_folder)(tensor(images), return_features=True)
    assert found.shape == (6, 2048) and np.allclose(found, wanted.detach(), atol=1e-6)


def test_clean_resizes_by_clean_fids_own_filter(inception_folder):
    images, resize = pixels(), build_resizer("clean")
    found = features.of_images(pretrained.inception("clean", inception_folder), images)
    large = tensor(np.stack([resize(image) for image in images]))
    wanted = network(inception_folder).layers((large - 128) / 128)
    assert np.allclose(found, wanted.detach(), atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("resize", [build_resizer("clean"), build_resizer("legacy_tensorflow")])
def test_resizing_in_threads_gives_the_bits_of_clean_fid_alone(resize, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    images = pixels(11, size=17)
    found = pretrained.resized(resize, images)
    wanted = np.stack([resize(image) for image in images])
    assert (found == wanted).all() and found.dtype == wanted.dtype


def test_an_error_of_resizing_is_told_in_any_thread():
    def resize(image):
        return image[: 3 - image[0, 0, 0]]

    with pytest.raises(ValueError, match="broadcast"):
        pretrained.resized(resize, np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(5, 1))


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_the_network_is_given_the_bits_and_strides_of_an_array_of_float32(
    mode, inception_folder, monkeypatch
):
    seen = []

    class Seen(torch.nn.Module):
        def __init__(self, *words, **options):
            super().__init__()

        def forward(self, x):
            seen.append(x)
            return x[:, :, 0, 0]

    monkeypatch.setattr("cleanfid.inception_torchscript.InceptionV3W", Seen)
    images, resize = pixels(), build_resizer(mode)
    features.of_images(pretrained.inception(mode, inception_folder), images)
    wanted = tensor(np.stack([resize(image) for image in images]))
    assert torch.equal(seen[0], wanted) and seen[0].stride() == wanted.stride()
    assert seen[0].dtype == torch.float32


def test_grey_images_are_coloured_ones_of_equal_channels(inception_folder):
    grey = pixels(channels=1)
    extract = pretrained.inception("legacy_tensorflow", inception_folder)
    coloured = features.of_images(extract, grey.repeat(3, axis=3))
    assert (features.of_images(extract, grey) == coloured).all()


def test_probabilities_of_stored_features_are_the_networks(inception_folder):
    images = pixels()
    extract = pretrained.inception("legacy_tensorflow", inception_folder)
    found = pretrained.class_probabilities(features.of_images(extract, images), inception_folder)
    wanted = network(inception_folder)(tensor(images), no_output_bias=True)
    assert found.shape == (6, 1008) and np.allclose(found, wanted.detach(), rtol=1e-4)
    biased = network(inception_folder)(tensor(images))
    assert not np.allclose(found, biased.detach(), rtol=1e-4)


def test_all_metrics_in_inceptions_space_by_the_verbs(inception_folder, digits_file, tmp_path):
    """The held-out images against the stored reference and against the images themselves."""
    space = {"extractor": "inception", "inception_mode": "legacy_tensorflow"}
    space |= {"inception_path": str(inception_folder), "kd_subsets": 2}
    settings = json.dumps({"features": space, "cell": {"floor": True}, "metrics": METRICS})
    few = tmp_path / "few.safetensors"
    parts = {s: file.read(digits_file, s) for s in ("train", "test")}
    with file.writing(few, parts["train"][2]) as writer:
        for split, count in (("train", 14), ("test", 11)):
            pixels, labels, _ = parts[split]
            writer.add(split, pixels[:count], labels[:count])
    reference, out = tmp_path / "r.safetensors", tmp_path / "m.json"
    words = ["extract", json.dumps({"features": space}), "--data", few, "--out", reference]
    assert main([str(word) for word in words]) == 0
    words = ["evaluate", settings, "--data", few, "--reference", reference, "--out", out]
    assert main([str(word) for word in words]) == 0
    found = json.loads(out.read_text())
    assert set(METRICS) < set(found) and found["features"] == "inception:legacy_tensorflow"
    assert (found["images"], found["reference_images"]) == (11, 14)
    assert 1 <= found["inception_score"] < 2 and 0 <= found["recall"] <= 1 and found["fd"] > 0
    real = Images(few).pixels
    assert features.load(reference)[1].shape == (len(real), 2048)
    evaluate.run(json.loads(settings), None, few, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_dinov2_sees_what_torchvision_makes_of_the_image(tmp_path):
    """The stand-in returns the pixels that it was given."""
    stand_in = torch.nn.Sequential(torch.nn.AvgPool2d(28), torch.nn.Flatten())
    path = tmp_path / "dinov2.pt"
    torch.jit.trace(stand_in, torch.zeros(1, 3, 224, 224)).save(str(path))
    seen = transforms.Compose([
        transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC), transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    images = pixels()
    wanted = stand_in(torch.stack([seen(Image.fromarray(image)) for image in images]))
    space = {"extractor": "dinov2", "dinov2_path": str(path)}
    name, extract = evaluate.extractor(space)
    assert name == "dinov2"
    assert np.allclose(features.of_images(extract, images), wanted, atol=1e-5)


@pytest.fixture
def published(inception_folder, monkeypatch):
    """Makes the stand-in the file that clean-fid downloads."""

    def publish(path=inception_folder / INCEPTION_FILE):
        monkeypatch.setattr(downloads_helper, "inception_url", path.as_uri())

    return publish


def test_weights_are_downloaded_once(published, inception_folder, tmp_path):
    published()
    path = tmp_path / "models" / INCEPTION_FILE
    assert main(["fetch-inception", "--out", str(path)]) == 0
    assert path.read_bytes() == (inception_folder / INCEPTION_FILE).read_bytes()
    assert [each.name for each in path.parent.iterdir()] == [INCEPTION_FILE]
    path.write_bytes(b"put there by hand")
    assert main(["fetch-inception", "--out", str(path)]) == 0
    assert path.read_bytes() == b"put there by hand"


def test_a_space_without_a_folder_has_the_fetched_weights(published, tmp_path, monkeypatch):
    published()
    monkeypatch.chdir(tmp_path)
    found = features.of_images(pretrained.inception("legacy_tensorflow"), pixels())
    assert found.shape == (6, 2048) and (tmp_path / "models" / INCEPTION_FILE).is_file()


@pytest.mark.parametrize("torn", [False, True])
def test_without_a_network_it_says_what_to_put_where(
    torn, published, inception_folder, tmp_path, monkeypatch, capsys
):
    if torn:
        half = tmp_path / "half.pt"
        half.write_bytes((inception_folder / INCEPTION_FILE).read_bytes()[:5000])
        published(half)
    else:

        def refuse(url):
            raise urllib.error.URLError("no network")

        monkeypatch.setattr(downloads_helper.urllib.request, "urlopen", refuse)
    path = tmp_path / "models" / INCEPTION_FILE
    assert main(["fetch-inception", "--out", str(path)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"ect fetch-inception: {path}: ")
    words = [downloads_helper.inception_url, "there by hand", "features.inception_path"]
    assert all(word in said[0] for word in words)
    assert not path.parent.exists()


def test_a_file_that_is_no_network_is_named(tmp_path, digits_file, capsys):
    (tmp_path / INCEPTION_FILE).write_bytes(b"a web page about a proxy")
    space = {"extractor": "inception", "inception_mode": "clean", "kd_subsets": 2}
    settings = json.dumps({"features": space | {"inception_path": str(tmp_path)}, "cell": {}})
    words = ["evaluate", settings, "--data", str(digits_file), "--out", str(tmp_path / "m.json")]
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and f"{INCEPTION_FILE}: not a readable TorchScript" in said[0]
