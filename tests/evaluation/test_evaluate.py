"""Images and their distances: each repeat is a separate evaluation with separate seeds."""

import copy
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ect.cli.main import main
from ect.config import verbs
from ect.config.cells import Milestone
from ect.config.config import Config
from ect.data.batches import Images
from ect.evaluation import classifier, evaluate, features, sample, trace
from ect.models import build
from ect.runtime import checkpoint
from ect.runtime.record import digest
from ect.study import settings as study_settings
from tests.helpers.configs import DEFAULT


def study(**evaluation):
    config = copy.deepcopy(DEFAULT)
    config["networks"]["small"] |= {"channels": 8, "multipliers": [1], "attention": []}
    config["evaluation"] = {"images": 20, "batch": 7, "kd_subsets": 2} | evaluation
    return Config.read(config)


@pytest.fixture(scope="module")
def files(digits_file, tmp_path_factory):
    """An untrained model, the data, and the weights of a feature space."""
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    about = build.description(
        study_settings.train(study(), Milestone("ve", 0, 12)), Images(digits_file)
    )
    network = build.make_network(about["network"], about["shape"])
    checkpoint.save(folder / "model.safetensors", network.state_dict(), **about)
    options = {"channels": 4, "epochs": 1, "batch": 99, "lr": 1e-3}
    classifier.run(options, digits_file, folder)
    model, weights = folder / "model.safetensors", folder / "classifier.safetensors"
    return {"model": model, "data": digits_file, "classifier": weights}


def measuring(study):
    """The settings of `evaluate` for drawn images."""
    return study_settings.evaluate(study, None) | {"cell": {}}


def drawn(study, files, folder, repeat=0):
    """The samples.npz of a repeat."""
    sample.run(
        study_settings.sample(study, "one_step", repeat), files["model"], folder / f"{repeat}"
    )
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
    assert gap.max() <= 1  # in other batches rounding differs
    assert (arrays[1] != arrays[2]).any()


def test_metrics_of_repeats_are_those_of_each_and_their_mean(files, tmp_path):
    one = study(repeats=3, metrics=["fd", "kd", "recall"])
    settings = {**measuring(one), "metrics": ["fd", "kd", "recall"]}
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
    words = ["evaluate", json.dumps(measuring(study())), "--out"]
    words += [tmp_path / "m.json", "--data", files["data"], "--samples", *paths]
    assert main([str(word) for word in [*words, "--classifier", files["classifier"]]]) == 1
    assert "the repeats have [20, 30] images" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("link", [None, os.symlink, os.link, shutil.copy])
def test_a_set_of_images_is_one_repeat(files, tmp_path, capsys, link):
    path = drawn(study(images=20), files, tmp_path)
    again = path if link is None else tmp_path / "again.npz"
    if link:
        link(path, again)
    words = ["evaluate", json.dumps(measuring(study())), "--out"]
    words += [tmp_path / "m.json", "--data", files["data"], "--samples", path, again]
    assert main([str(word) for word in [*words, "--classifier", files["classifier"]]]) == 1
    assert f"{again}: found twice among the repeats; allowed: each" in capsys.readouterr().err


@pytest.mark.parametrize("key, value", [("precision", "bf16"), ("compile", True)])
def test_a_precision_is_of_all_that_is_drawn_and_else_unsaid(key, value):
    """Without the key the settings of jobs are as before, so that nothing is drawn again."""
    plain, half = study(), study(**{key: value})
    for told in (
        study_settings.sample(plain, "one_step"),
        *study_settings.trace(plain)["samplers"].values(),
    ):
        assert key not in told
    for told in (
        study_settings.sample(half, "one_step"),
        *study_settings.trace(half)["samplers"].values(),
    ):
        assert told[key] == value
        verbs.require("sample", told)


def test_a_searchs_seeds_are_apart_from_those_of_every_repeat():
    config = copy.deepcopy(DEFAULT)
    cut = {"pretrain": "ve", "kimg": 30, "tune": "ect", "tune_kimg": 30, "schedule": "sigmoid"}
    config["search"] = {"models": [cut], "images": 100, "seed": 5000}
    config["evaluation"] |= {"images": 2000, "repeats": 2}
    Config.read(config)
    config["evaluation"]["repeats"] = 3
    with pytest.raises(ValueError, match=r"search\.seed: .* evaluation's seeds 0 to 5999"):
        Config.read(config)


def stored(source, settings, files, out):
    """What the verb `extract` writes of a source, named as its option."""
    option, path = source
    words = ["extract", json.dumps(settings), option, path, "--out", out]
    assert main([str(word) for word in [*words, "--classifier", files["classifier"]]]) == 0
    return out


def test_stored_and_streamed_features_give_the_metrics_to_the_bit(files, tmp_path):
    """In one job from the images, from the features of samples.npz, and from those of images that
    were never on disk; the training images' features stored or not. 520 images: two batches."""
    one = study(images=520, batch=90)
    streamed = study(images=520, batch=90, export=["features"])
    settings = measuring(one) | {"cell": {"label": "test"}}
    npz = drawn(one, files, tmp_path)
    reference = tmp_path / "reference.safetensors"
    stored(("--data", files["data"]), study_settings.extract(one), files, reference)
    of_file, of_model = tmp_path / "of_file.safetensors", tmp_path / "of_model.safetensors"
    stored(("--samples", npz), study_settings.extract(one, "one_step"), files, of_file)
    stored(
        ("--model", files["model"]), study_settings.extract(streamed, "one_step"), files, of_model
    )
    assert of_file.read_bytes() == of_model.read_bytes()

    first = evaluated(settings, [npz], files, tmp_path / "m.json")
    for source in (npz, of_file, of_model):
        out = tmp_path / "again.json"
        evaluate.run(settings, str(source), None, out, files["classifier"], reference)
        assert json.loads(out.read_text()) == first


@pytest.mark.parametrize("names", [["fd", "kd"], ["fd", "precision", "recall"]])
def test_a_summary_of_the_reference_changes_no_byte(names, files, tmp_path, capsys):
    """It is that of one file of features: with others it is refused, and so is it without any."""
    one = study(images=20, metrics=names, repeats=2)
    settings = measuring(one)
    npz, other = (drawn(one, files, tmp_path, repeat) for repeat in (0, 1))
    reference, again = tmp_path / "reference.safetensors", tmp_path / "again.safetensors"
    stored(("--data", files["data"]), study_settings.extract(one), files, reference)
    stored(("--samples", npz), study_settings.extract(one), files, again)
    summarized = tmp_path / "summary.safetensors"
    words = ["summarize", json.dumps(study_settings.summarize(one)), "--reference", reference]
    assert main([str(word) for word in [*words, "--out", summarized]]) == 0
    assert ("radii" in checkpoint.load(summarized)[0]) == ("recall" in names)

    def told(*more):
        words = ["evaluate", json.dumps(settings), "--samples", npz, other, *more]
        words += ["--classifier", files["classifier"], "--out", tmp_path / "m.json"]
        return main([str(word) for word in words])

    assert told("--reference", reference) == 0
    wanted = (tmp_path / "m.json").read_bytes()
    assert told("--reference", reference, "--summary", summarized) == 0
    assert (tmp_path / "m.json").read_bytes() == wanted
    for found, more in {
        f"not of the features in {again}": ["--reference", again, "--summary", summarized],
        "summary is given, but reference": ["--data", files["data"], "--summary", summarized],
        f"{npz} holds no 'root'": ["--reference", reference, "--summary", npz],
    }.items():
        assert told(*more) == 1
        said = capsys.readouterr().err
        assert found in said and "allowed: " in said and len(said.splitlines()) == 1


def test_stored_features_have_their_record(files, tmp_path):
    path = tmp_path / "r.safetensors"
    stored(
        ("--model", files["model"]),
        study_settings.extract(study(export=["features"]), "one_step"),
        files,
        path,
    )
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["settings"]["sampling"]["images"] == 20
    assert set(record["inputs"]) == {str(files["model"]), str(files["classifier"])}


@pytest.mark.parametrize("verb", ["extract", "evaluate"])
def test_no_images_at_all_are_one_line(verb, tmp_path, capsys):
    words = [
        verb,
        json.dumps(measuring(study())),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"ect {verb}: ") and "allowed: " in said[0]


def test_features_are_kept_in_the_networks_own_precision(files, tmp_path):
    path = stored(
        ("--data", files["data"]),
        study_settings.extract(study()),
        files,
        tmp_path / "r.safetensors",
    )
    found, about = checkpoint.load(path)
    images = Images(files["data"])
    _, network = classifier.extractor(files["classifier"])
    assert about == {"features": "classifier", "shape": [1, 8, 8]}
    assert found["features"].dtype == torch.float32
    assert (features.load(path)[1] == features.of_images(network, images.pixels)).all()
    with pytest.raises(checkpoint.CheckpointError, match=r"model\.safetensors: holds no features"):
        features.load(files["model"])


def test_features_of_another_space_are_refused(files, tmp_path, capsys):
    features.save(tmp_path / "r.safetensors", torch.zeros(9, 64), "inception:clean")
    words = [
        "evaluate",
        json.dumps(measuring(study())),
        "--data",
        files["data"],
        "--out",
        "m",
    ]
    words += ["--reference", tmp_path / "r.safetensors", "--classifier", files["classifier"]]
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert "r.safetensors: features are 'inception:clean'" in said and len(said.splitlines()) == 1
    words = [
        "evaluate",
        json.dumps(measuring(study())),
        "--data",
        files["data"],
        "--out",
        "m",
    ]
    words += ["--samples", tmp_path / "r.safetensors", "--classifier", files["classifier"]]
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert f"{files['data']}: features are 'classifier'" in said and len(said.splitlines()) == 1


def test_features_of_another_width_are_refused(tmp_path, capsys):
    """Of the samples, or of a file that holds no features at all."""
    for name, tensor in (("a", torch.rand(9, 8)), ("b", torch.rand(9, 6)), ("flat", torch.rand(9))):
        features.save(tmp_path / f"{name}.safetensors", tensor, "mine")
    checkpoint.save(tmp_path / "nameless.safetensors", {"features": torch.rand(9, 8)})
    settings = json.dumps({"features": {"extractor": "classifier", "kd_subsets": 2}, "cell": {}})
    for name, wanted in {
        "b": "b.safetensors: 6 numbers for each image; allowed: 8, as of those of",
        "flat": "flat.safetensors: holds (9,) of torch.float32; allowed: (images, numbers)",
        "nameless": "nameless.safetensors: found no name for the space of its features",
    }.items():
        words = ["evaluate", settings, "--samples", tmp_path / f"{name}.safetensors"]
        words += ["--reference", tmp_path / "a.safetensors", "--out", tmp_path / "m.json"]
        assert main([str(word) for word in words]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert wanted in line and not (tmp_path / "m.json").exists()


def test_snapshots_are_named_by_the_images_seen(files, tmp_path):
    weights, about = checkpoint.load(files["model"])
    path = tmp_path / "snapshots.safetensors"
    checkpoint.save(path, checkpoint.prefixed("last", weights), **about)
    with pytest.raises(ValueError, match=r"snapshots\.safetensors: found 'last'; allowed: weights"):
        list(trace.models(files["model"], path))
    checkpoint.save(path, {}, **about)
    with pytest.raises(ValueError, match=r"found no snapshots; allowed: those of a run with snap"):
        list(trace.models(files["model"], path))


def test_images_of_another_size_than_the_datas_are_refused(files, tmp_path, capsys):
    """Inception resizes: without a check it would measure them as if they were comparable. So would
    features, stored of either."""
    settings = {
        "features": study_settings.evaluate(study(), None)["features"] | {"extractor": "plain"},
        "cell": {},
    }
    plugin = tmp_path / "plain.py"
    plugin.write_text(
        "import numpy as np\nfrom ect.plugins import features\n\n\n@features\ndef plain(pixels):\n"
        "    return np.stack([pixels.mean((1, 2, 3)), pixels.std((1, 2, 3))], 1)\n"
    )
    settings["features"]["plugins"] = {str(plugin): digest(plugin)}
    extracted = {"features": settings["features"]}
    rng = np.random.default_rng(0)
    for side in (8, 9):
        pixels = rng.integers(0, 256, (20, side, side, 1), np.uint8)
        np.savez(tmp_path / f"{side}.npz", pixels)
        evaluate.extract(extracted, tmp_path / f"{side}.safetensors", tmp_path / f"{side}.npz")
    evaluate.extract(extracted, tmp_path / "r.safetensors", data=files["data"])
    old, about = checkpoint.load(tmp_path / "9.safetensors")
    checkpoint.save(tmp_path / "old.safetensors", old, features=about["features"])
    against = (["--data", files["data"]], ["--reference", tmp_path / "r.safetensors"])
    for source, words in itertools.product(
        ("8.npz", "8.safetensors", "9.npz", "9.safetensors", "old.safetensors"), against
    ):
        out = tmp_path / f"{source}.json"
        verb = ["evaluate", json.dumps(settings), "--samples", tmp_path / source, *words]
        code = main([str(word) for word in [*verb, "--out", out]])
        said = capsys.readouterr().err
        assert code == source.startswith("9") and out.exists() == (code == 0), said
        wanted = f"{tmp_path / source}: images of 9x9x1; allowed: of 8x8x1, as those of {words[1]}"
        assert code == 0 or (wanted in said and len(said.splitlines()) == 1)


def test_features_are_of_one_source(files, tmp_path, capsys):
    words = [
        "extract",
        json.dumps(study_settings.extract(study())),
        "--out",
        tmp_path / "f.safetensors",
    ]
    words += ["--model", files["model"], "--data", files["data"]]
    assert main([str(word) for word in words]) == 1
    assert "found 2 sources; allowed: one of" in capsys.readouterr().err


def test_extraction_does_not_depend_on_how_distances_are_made():
    one, other = study(), study(kd_subsets=9, metrics=["fd", "recall"])
    assert study_settings.extract(one) == study_settings.extract(other)
    assert study_settings.evaluate(one, None) != study_settings.evaluate(other, None)


def test_the_network_of_the_feature_space_is_a_file_of_the_workflow(inception_folder):
    assert study().network_files() == []
    config = copy.deepcopy(DEFAULT)
    config["features"] = {"extractor": "inception"}
    assert Config.read(config).network_files() == ["models/inception-2015-12-05.pt"]
    config["features"]["inception_path"] = str(inception_folder)
    assert Path(Config.read(config).network_files()[0]).is_file()


def test_without_npz_only_the_images_of_the_figure_are_written():
    one, streamed = study(images=200), study(images=200, export=["features"])
    assert study_settings.save_samples(one, "one_step", 1) == study_settings.sample(
        one, "one_step", 1
    )
    few = study_settings.save_samples(streamed, "one_step", 1)
    assert few["images"] == streamed.figures.grid_columns < 200 and few["seed"] == 200
    assert study_settings.sample(streamed, "one_step")["images"] == 200
