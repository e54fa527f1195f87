"""The study's own feature space: what its networks give, and what augmentation does to an image."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ect.config.evaluation import Classifier
from ect.data import prepare
from ect.data.batches import Images
from ect.evaluation import classifier, features
from ect.evaluation.evaluate import extractor

RESNET = {"network": "resnet", "epochs": 1, "batch": 99, "lr": 1e-3, "augment": True}


@pytest.fixture(scope="module")
def trained(digits_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    classifier.run(RESNET, digits_file, folder)
    return folder


def test_a_resnets_space_has_its_name_and_its_512_features(trained, digits_file):
    name, extract = extractor({"extractor": "classifier"}, trained / "classifier.safetensors")
    assert name == "resnet"
    pixels = Images(digits_file).pixels[:60]
    found = features.of_images(extract, pixels)
    assert found.shape == (60, 512) and (found >= 0).all() and found.std(axis=0).max() > 0
    one_by_one = torch.cat([extract(pixels[i : i + 1]) for i in range(3)]).detach()
    assert torch.allclose(one_by_one.double(), torch.from_numpy(found[:3]), atol=1e-5)


def test_a_classifier_is_its_settings_and_says_how_good_it_is(trained, digits_file, tmp_path):
    torch.manual_seed(1)
    classifier.run(RESNET, digits_file, tmp_path)
    weights = [folder / "classifier.safetensors" for folder in (trained, tmp_path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    record = json.loads((trained / "run.json").read_text())
    labels, accuracy = Images(digits_file, "test").labels, record["test_accuracy"]
    assert record.get("at_chance", False) == classifier.at_chance(accuracy, labels)
    assert record["settings"] == RESNET and 0 <= accuracy <= 1


def test_without_held_out_images_nothing_is_said_of_its_accuracy(tmp_path):
    settings = {"source": "digits", "normalize": "unit", "held_out": 0, "split_seed": 0}
    prepare.run(settings | {"max_images": 200}, tmp_path / "d.safetensors")
    classifier.run(RESNET, tmp_path / "d.safetensors", tmp_path / "c")
    record = json.loads((tmp_path / "c" / "run.json").read_text())
    assert not {"test_accuracy", "at_chance"} & set(record)
    assert extractor({"extractor": "classifier"}, tmp_path / "c" / "classifier.safetensors")


def test_a_batch_larger_than_the_training_is_one_line(digits_file, tmp_path):
    with pytest.raises(ValueError, match=r"1 epochs of 297 images .* batch of 300; allowed"):
        classifier.run(RESNET | {"epochs": 1, "batch": 300}, digits_file, tmp_path)


@given(st.integers(0, 10**6), st.sampled_from([(8, 8), (32, 32), (16, 24)]))
def test_an_augmented_image_is_the_image_mirrored_or_not_and_moved(seed, size):
    """The values of a pixel are its row and column. Between neighbours they differ by one, by zero
    on a repeated edge; no pixel moves by more than an eighth of the side."""
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = torch.stack([rows, columns]).float().expand(5, 2, height, width)
    found = classifier.augmented(x, torch.Generator().manual_seed(seed))
    assert found.shape == x.shape
    reach = max(size) // 8
    for image in found:
        down, across = image[0, :, 0], image[1, 0]
        assert (image[0] == down[:, None]).all() and (image[1] == across).all()
        assert set(down.diff().tolist()) <= {0.0, 1.0}
        assert set(across.diff().tolist()) in ({1.0}, {0.0, 1.0}, {-1.0}, {0.0, -1.0})
        across = across.flip(0) if across[0] > across[-1] else across
        assert (down - torch.arange(height)).abs().max() <= reach
        assert (across - torch.arange(width)).abs().max() <= reach


def test_augmentation_is_drawn_per_image(draw):
    found = classifier.augmented(draw(0)[:1].expand(40, 1, 8, 8), torch.Generator().manual_seed(0))
    assert len({image.numpy().tobytes() for image in found}) > 10


def test_a_plain_classifier_is_told_as_it_always_was():
    plain = {"channels": 16, "epochs": 4, "batch": 64, "lr": 1e-3}
    assert Classifier(**plain).resolved() == plain
    assert Classifier(**RESNET).resolved() == RESNET
    for wrong in (plain | {"network": "resnet"}, RESNET | {"network": "plain"}):
        with pytest.raises(ValueError, match="allowed: channels with the plain network"):
            Classifier(**wrong)
