"""Images and their distances: a repeat is an evaluation of its own, with seeds of its own."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_config import DEFAULT

from ect import checkpoint, evaluate, experiment, features
from ect.__main__ import main
from ect.data import Images
from ect.study import Milestone, Study


def study(**evaluation):
    config = copy.deepcopy(DEFAULT)
    config["networks"]["small"] |= {"channels": 8, "multipliers": [1], "attention": []}
    config["evaluation"] = {"images": 20, "batch": 7, "kd_subsets": 2} | evaluation
    return Study.read(config)


@pytest.fixture(scope="module")
def files(digits_file, tmp_path_factory):
    """A model that was never trained, the data, and the weights of a feature space."""
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    about = experiment.describe(study().training(Milestone("ve", 0, 12)), Images(digits_file))
    network = experiment.make_network(about["network"], about["shape"])
    checkpoint.save(folder / "model.safetensors", network.state_dict(), **about)
    options = {"channels": 4, "epochs": 1, "batch": 99, "lr": 1e-3}
    features.train_classifier(options, digits_file, folder)
    model, weights = folder / "model.safetensors", folder / "classifier.safetensors"
    return {"model": model, "data": digits_file, "classifier": weights}


def drawn(study, files, folder, repeat=0):
    """The samples.npz of a repeat."""
    evaluate.sample(study.sampling("one_step", repeat), files["model"], folder / f"{repeat}")
    return folder / f"{repeat}" / "samples.npz"


def evaluated(settings, samples, files, out):
    """What the verb `evaluate` writes."""
    words = ["evaluate", json.dumps(settings), "--data", files["data"], "--out", out]
    words += ["--samples", *samples, "--classifier", files["classifier"]]
    assert main([str(word) for word in words]) == 0
    return json.loads(Path(out).read_text())


def test_repeats_draw_the_images_of_the_seeds_that_follow(files, tmp_path):
    whole = drawn(study(images=40), files, tmp_path / "whole")
    parts = [drawn(study(images=20), files, tmp_path, repeat) for repeat in (0, 1)]
    arrays = [np.load(path)["arr_0"].astype(int) for path in (whole, *parts)]
    gap = np.abs(arrays[0] - np.concatenate(arrays[1:]))
    assert gap.max() <= 1  # other batches round otherwise
    assert (arrays[1] != arrays[2]).any()


def test_metrics_of_repeats_are_those_of_each_and_their_mean(files, tmp_path):
    one = study(repeats=3, metrics=["fd", "kd", "recall"])
    settings = {"features": one.feature_space(), "cell": {}, "metrics": ["fd", "kd", "recall"]}
    paths = [drawn(one, files, tmp_path, repeat) for repeat in range(3)]
    alone = [evaluated(settings, [path], files, tmp_path / "one.json") for path in paths]
    all_three = evaluated(settings, paths, files, tmp_path / "all.json")
    for name in ("fd", "kd", "recall"):
        values = [metrics[name] for metrics in alone]
        assert all_three["repeats"][name] == values
        assert all_three[name] == pytest.approx(np.mean(values), rel=1e-12)
    assert len(set(all_three["repeats"]["fd"])) == 3
    assert "repeats" not in alone[0] and all_three["images"] == alone[0]["images"] == 20


def test_repeats_of_different_sizes_are_refused(files, tmp_path, capsys):
    paths = [drawn(study(images=n), files, tmp_path / str(n)) for n in (20, 30)]
    words = ["evaluate", json.dumps({"features": study().feature_space(), "cell": {}}), "--out"]
    words += [tmp_path / "m.json", "--data", files["data"], "--samples", *paths]
    assert main([str(word) for word in [*words, "--classifier", files["classifier"]]]) == 1
    assert "the repeats have [20, 30] images" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


def test_a_searchs_seeds_are_apart_from_those_of_every_repeat():
    config = copy.deepcopy(DEFAULT)
    cut = {"pretrain": "ve", "kimg": 60, "tune": "ect", "tune_kimg": 60, "schedule": "sigmoid"}
    config["search"] = {"models": [cut], "images": 100, "seed": 5000}
    config["evaluation"] |= {"images": 2000, "repeats": 2}
    Study.read(config)
    config["evaluation"]["repeats"] = 3
    with pytest.raises(ValueError, match=r"search\.seed: .* evaluation's seeds 0 to 5999"):
        Study.read(config)
