"""What a job would fail for after hours is told before the first one."""

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from ect.cli.main import main
from ect.config import fits, load
from ect.config.config import Config, ConfigError
from ect.config.dataset import COUNTS
from ect.config.evaluation import INCEPTION_FILE
from ect.config.network import Network
from ect.data import decode, look
from ect.evaluation import metrics
from ect.models.build import build_network
from ect.networks import edm2
from ect.networks.unet import Attention
from ect.networks.widths import levels
from ect.runtime import checkpoint
from tests.helpers.configs import CUT, DEFAULT, PICKLE, ROOT, SEARCH, changed

TEN = {"networks/small/classes": 10}
MNIST = {"dataset": {"source": "mnist", "path": "no"}, "networks/small/attention": [14]}
BARE = {"format": "state_dict", "file": str(PICKLE), "network": "small"}
BARE |= {"process": "ve", "parameterization": "edm", "c_noise": "log_s"}
EDM = {"format": "edm", "file": str(PICKLE)}
IMPORTED = {"figures/samples": CUT | {"pretrain": "a", "kimg": 0}}
PLAIN = {"pretrain": ["ve"], "kimg": [30], "samplers": ["heun"]}
TUNED = {**PLAIN, "tune": "ect", "tune_kimg": 6, "schedules": ["sigmoid"]}
FEW = {"dataset/held_out": 3}
INCEPTION = {"extractor": "inception"}
WRONG = {
    "no level": ({"networks/small/attention": [8, 16]}, ["small.attention: found 16", "8, 4"]),
    "more snapshots than steps": (
        {"tune/ect_slope/snapshots": 1000, "tune/ect_slope/batch": 500},
        ["tune.ect_slope.snapshots: found 1000 with a run of", "steps; allowed: at most"],
    ),
    "too coarse": ({"networks/small/attention": [2]}, ["small.attention: found 2", "8, 4"]),
    "other images": (
        {**MNIST, "networks/small/attention": [8, 4]},
        ["small.attention: found 8, 4", "28 x 28", "28, 14"],
    ),
    "halved": (
        {"networks/small/multipliers": [1] * 5, "networks/small/attention": []},
        ["small.multipliers: found 5", "8 x 8", "at most 4"],
    ),
    "halved, odd": (
        {**MNIST, "networks/small/multipliers": [1] * 4},
        ["small.multipliers: found 4", "28 x 28", "at most 3"],
    ),
    "halved, resolution": (
        {**MNIST, "dataset": MNIST["dataset"] | {"resolution": 15}},
        ["small.multipliers: found 2", "15 x 15", "at most 1"],
    ),
    "state dict": (
        {"init": {"a": BARE}, "networks/big": {"channels": 32, "multipliers": [1], "blocks": 1}}
        | {"init/a/network": "big", "networks/big/attention": [4], **IMPORTED},
        ["networks.big.attention: found 4", "its levels, 8"],
    ),
    "dropout": (
        {"tune/ect/dropout": 0.1, "tune/ect/dropout_at": 3},
        ["tune.ect.dropout_at: found 3 with the network 'small'", "4 pixels", "4 or more"],
    ),
    "dropout of an average": (
        {"pretrain/ve/ema_std": 0.1, "pretrain/ve/ema_halflife_kimg": None}
        | {"pretrain/ve/ema_ramp": None, "pretrain/ve/dropout": 0.1, "pretrain/ve/dropout_at": 2}
        | {"averages": {"a": {"pretrain": "ve", "kimg": 30, "ema_std": 0.15}}},
        ["pretrain.ve.dropout_at: found 2 with the network 'small'", "4 or more"],
    ),
    "all held out": ({"dataset/held_out": 1797}, ["held_out: found 1797 of 1797", "fewer"]),
    "all of some": (
        {"dataset/max_images": 100, "dataset/held_out": 100},
        ["held_out: found 100 of 100", "fewer"],
    ),
    "all of the split": (
        {**MNIST, "dataset": MNIST["dataset"] | {"held_out": 10_001}},
        ["held_out: found 10001", "at most 10000", "mnist"],
    ),
    "a share of one": ({"dataset/held_out": 5e-4}, ["0.0005, which is 1 of", "at least 2"]),
    "a share of all": ({"dataset/held_out": 0.9999}, ["held_out: found 0.9999 of 1797", "0.2"]),
    "one held out": ({"dataset/held_out": 1}, ["held_out: found 1", "fd", "at least 2, or 0"]),
    "none held out, one shown": (
        {"dataset/held_out": 0, "figures/nearest": CUT | {"sampler": "two_step"}},
        ["figures.nearest: set with dataset.held_out 0", "with images held out"],
    ),
    "none held out, one to train": (
        {"dataset/held_out": 0, "dataset/max_images": 1},
        ["max_images: found 1", "leaves 1 images", "2 of them"],
    ),
    "one of the split": (
        {**MNIST, "dataset": MNIST["dataset"] | {"held_out": 1}},
        ["held_out: found 1", "at least 2"],
    ),
    "one to train": ({"dataset/held_out": 1796}, ["held_out: found 1796", "1 images", "2 of them"]),
    "few to train": (
        {"dataset/max_images": 361, "dataset/held_out": 360},
        ["max_images: found 361", "leaves 1 images", "2 of them"],
    ),
    "precision": (
        {**FEW, "evaluation/metrics": ["fd", "precision"]},
        ["held_out: found 3", "precision", "at least 4"],
    ),
    "recall": (
        {**FEW, "evaluation/metrics": ["fd", "recall"]},
        ["held_out: found 3", "recall", "at least 4"],
    ),
    "inception score": (
        {"dataset/held_out": 9, "features": INCEPTION}
        | {"evaluation/metrics": ["fd", "inception_score"]},
        ["held_out: found 9", "inception_score", "at least 10"],
    ),
    "grid": (
        {"evaluation/images": 10, "evaluation/batch": 10},
        ["grid_columns: found 12", "at most 10, the evaluation.images"],
    ),
    "grid of data": (
        {"dataset/max_images": 371, "features": INCEPTION},
        ["grid_columns: found 12", "at most 11, the images to train with"],
    ),
    "batch": (
        {"features/classifier/epochs": 1, "features/classifier/batch": 1438},
        ["classifier.batch: found 1438 for 1 epochs of 1437", "at most 1437"],
    ),
    "pooled": (
        {**MNIST, "dataset": MNIST["dataset"] | {"resolution": 2}, "networks/small/attention": []},
        ["classifier.network: found 'plain'", "2 pixels", "at least 4"],
    ),
    "too few classes": ({"networks/small/classes": 9}, ["small.classes: found 9", "10", "or 0"]),
    "too many classes": ({"networks/small/classes": 11}, ["small.classes: found 11", "10", "or 0"]),
    "label": (
        {**TEN, "samplers/two_step/labels": [3, 10]},
        ["samplers.two_step.labels: found 10", "'ve'", "'small'", "0 to 9"],
    ),
    "label, no classes": (
        {"samplers/heun/labels": [0]},
        ["samplers.heun.labels: found 0", "no such key"],
    ),
    "label of the figure": (
        {"experiments": {"methods": {"question": "?", "kind": "methods", "rows": [PLAIN]}}}
        | {"samplers/four_step/labels": [1]},
        ["samplers.four_step.labels: found 1"],
    ),
    "range": (
        {"init": {"a": EDM}, **IMPORTED},
        ["normalize: found 'standard'", "'a', which reads images in [-1, 1]", "unit"],
    ),
    "no tuned": (
        {"experiments/split": {"question": "?", "kind": "split", "rows": [PLAIN]}},
        ["experiments.split.kind: found 'split' without a tuned model", "rows with tune"],
    ),
    "no tuned schedules": (
        {"experiments/schedules": {"question": "?", "kind": "schedules", "rows": [PLAIN]}},
        ["experiments.schedules.kind", "without a tuned model"],
    ),
    "two totals": (
        {"experiments/split/rows": [TUNED, TUNED | {"tune_kimg": 12}]},
        ["experiments.split: found totals of 36, 42", "one total"],
    ),
}  # fmt: skip


def laid(changes):
    """The default config with keys set."""
    config = json.loads(json.dumps(DEFAULT))
    for path, value in changes.items():
        *blocks, key = path.split("/")
        place = config
        for block in blocks:
            place = place[block]
        place[key] = value
    return config


@pytest.mark.parametrize("changes, words", WRONG.values(), ids=WRONG)
def test_what_no_job_could_do_is_told_by_the_config(changes, words):
    with pytest.raises(ConfigError) as caught:
        Config.read(laid(changes))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines


RIGHT = {
    "a first milestone of one step of the warm-up": {"pretrain/ve/batch": 6000},
    "a lowest rate": {"tune/ect/optimizer/lr": 1e-9},
    "levels": {"networks/small/attention": [8, 4]},
    "unused": {"networks/other": {"channels": 32, "multipliers": [1] * 9, "blocks": 1}},
    "halved to one": {"networks/small/multipliers": [1] * 4},
    "a share": {"dataset/held_out": 0.2},
    "no figures": {"figures": None},
    "no grid": {"figures/samples": None, "figures/solver": None, "figures/grid_columns": 100,
                "dataset/held_out": 1785},
    "no loss page": {"figures/loss": None, "tune/ect_slope/snapshots": 0},
    "two to train": {"dataset/held_out": 1785},
    "least": {"dataset/held_out": 2},
    "none held out": {"dataset/held_out": 0, "evaluation/metrics": ["fd", "recall"]},
    "none of the split": {**MNIST, "dataset": MNIST["dataset"] | {"held_out": 0}},
    "least of precision": {"dataset/held_out": 4, "evaluation/metrics": ["fd", "precision"]},
    "grid": {"evaluation/images": 12, "evaluation/batch": 10},
    "a batch": {"features/classifier/epochs": 1, "features/classifier/batch": 1437},
    "classes": {**TEN, "samplers/two_step/labels": [0, 9]},
    "a start that is not used": {"init": {"a": EDM}},
    "in its range": {"init": {"a": EDM}, **IMPORTED, "dataset/normalize": "unit"},
    "a state dict of more classes": {
        "init": {"a": BARE | {"network": "big"}}, **IMPORTED,
        "networks/big": {"channels": 32, "multipliers": [1], "blocks": 1, "classes": 20},
    },
    "searched": {"search": SEARCH},
}  # fmt: skip


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT)
def test_what_just_fits_is_taken(changes):
    Config.read(laid(changes))


@pytest.mark.parametrize("name, least", fits.LEAST.items())
def test_the_least_number_of_images_is_that_of_the_metric(name, least):
    draws = np.random.default_rng(0).normal(size=(20, 3))

    def measured(n):
        chances = np.full((n, 3), 1 / 3)
        return metrics.measures([name], draws[:n], draws[10:], 2, chances)[name]

    assert np.isfinite(measured(least))
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        try:
            assert np.isnan(measured(least - 1))
        except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
            assert str(error)


def test_the_counts_are_those_of_the_source():
    digits = load_digits()
    assert COUNTS["digits"] == (len(digits.images), 0, len(digits.target_names))


LEVELS = {
    "plain": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]},
    "two": {"channels": 8, "multipliers": [1, 2, 2], "blocks": 3, "attention": [8, 4]},
    "none": {"channels": 8, "multipliers": [1, 2], "blocks": 2},
    "ncsnpp": {"channels": 8, "multipliers": [1, 1], "blocks": 2, "architecture": "ncsnpp"}
    | {"attention": [8]},
    "adm": {"channels": 64, "multipliers": [1, 2], "blocks": 2, "architecture": "adm"}
    | {"attention": [8]},
    "narrow adm": {"channels": 32, "multipliers": [1, 2], "blocks": 1, "architecture": "adm"}
    | {"attention": [8, 4]},
    "edm2": {"channels": 32, "multipliers": [1, 2], "blocks": 2, "architecture": "edm2"}
    | {"attention": [8, 4]},
}  # fmt: skip


@pytest.mark.parametrize("block", LEVELS.values(), ids=LEVELS)
def test_the_levels_are_those_of_the_network(block):
    network = Network(**block)
    built, seen = build_network(network.resolved(), (1, 8, 8)), []
    for module in built.modules():
        if isinstance(module, (Attention, edm2.Attention)):
            module.register_forward_hook(lambda m, inputs, out: seen.append(out.shape[1:3]))
    built(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    for level in levels(network, 8):
        assert seen.count((level.width, level.side)) == level.layers
    assert len(seen) == sum(level.layers for level in levels(network, 8)) > 0


def test_the_plan_prints_the_levels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(laid({"networks/small/attention": [8]})))
    assert main(["plan"]) == 0
    wanted = (
        "network small: 8 x 8 (16 wide, 2 attention layers), 4 x 4 (32 wide, 1 attention layer)"
    )
    assert wanted in capsys.readouterr().out.splitlines()
    assert main(["plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["networks"]["small"]
    assert found[1] == {"side": 4, "width": 32, "layers": 1}


READS = {"shape": [1, 8, 8], "shift": 127.5, "scale": 1 / 127.5}
STARTS = {
    "no safetensors": (None, "unit", "init.a.file: found 'a.safetensors', which is no model"),
    "no model": ({"classes": 3}, "unit", "which is no model; allowed: a model.safetensors"),
    "shape": (READS | {"shape": [3, 8, 8]}, "unit", "of [3, 8, 8], the dataset has [1, 8, 8]"),
    "unit": (READS, "standard", "found 'standard' with the start 'a'"),
    "standard": (READS | {"scale": 0.01}, "unit", "of mean 0 and sd 0.5; allowed: standard"),
}


@pytest.mark.parametrize("about, normalize, words", STARTS.values(), ids=STARTS)
def test_a_start_of_other_images_is_told_by_its_file(
    tmp_path, monkeypatch, about, normalize, words
):
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(PICKLE.read_bytes())
    start = {"a": {"format": "ect", "file": "a.safetensors"}}
    config = laid({"init": start, **IMPORTED, "dataset/normalize": normalize})
    if about:
        checkpoint.save("a.safetensors", {"w": torch.zeros(1)}, **about)
    with pytest.raises(ConfigError) as caught:
        Config.read(config)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    checkpoint.save("a.safetensors", {"w": torch.zeros(1)}, **READS)
    config["dataset"]["normalize"] = "unit"
    Config.read(config)


@pytest.mark.parametrize(
    "study, changes, words",
    [
        ("imagenet64", {"tune": {"ect_s": {"dropout_at": 5}}}, ["tune.ect_s.dropout_at: found 5"]),
        ("imagenet64", {"tune": {"ect_s": {"dropout_at": 8}}}, None),
        (
            "cifar10-cond",
            {"init": {"edm": {"file": "models/edm-imagenet-64x64-cond-adm.pkl"}}},
            ["init.edm.file: 'models/edm-", "[3, 64, 64], the dataset has [3, 32, 32]"],
        ),
        ("cifar10-cond", {"init": {"edm": {"file": "models/mine.pkl"}}}, None),
    ],
)
def test_a_released_start_is_known_before_it_is_there(study, changes, words, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changes))
    files = [ROOT / "config.yaml", ROOT / "workflow" / "studies" / f"{study}.yaml"]
    mapping = load.read(*files, tmp_path / "mine.yaml")
    monkeypatch.chdir(tmp_path)
    if words is None:
        assert Config.read(mapping).init
        return
    with pytest.raises(ConfigError, match="; allowed: ") as refusal:
        Config.read(mapping)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize("key, file", [("inception_path", INCEPTION_FILE), ("dinov2_path", "d.pt")])
def test_a_feature_space_without_torchscript_is_told_by_its_file(tmp_path, key, file):
    (tmp_path / file).write_text("<html>")
    path = str(tmp_path if key == "inception_path" else tmp_path / file)
    block = {"extractor": key.removesuffix("_path"), key: path}
    with pytest.raises(ConfigError, match=rf"features: {key}: found '.*{file}', no TorchScript"):
        Config.read(changed("features", block))


def pictures(folder, count=40, side=8, classes=2):
    """Grey squares in one folder for each class, or without classes in one folder."""
    for index in range(count):
        path = Path(folder, f"c{index % classes}" if classes else "", f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side), index).save(path)


def packed(path, folder):
    with zipfile.ZipFile(path, "w") as file:
        for name in Path(folder).rglob("*.png"):
            file.write(name, name.relative_to(folder))


OWN = {"source": "images", "path": "photos", "held_out": 10, "classes": "folders"}
LOOKS = {
    "none": (lambda: Path("photos").mkdir(), {}, {}, ["photos: no images, found nothing"]),
    "no zip": (lambda: Path("photos").write_text("x"), {}, {}, ["photos: not a readable .zip"]),
    "share": (
        lambda: pictures("photos"), {"held_out": 0.01}, {}, ["0.01, which is 1 of the images"]
    ),
    "held out": (
        lambda: pictures("photos"), {"held_out": 40}, {}, ["held_out: found 40 of 40 images"]
    ),
    "left": (
        lambda: pictures("photos"), {"held_out": 30}, {}, ["grid_columns: found 12", "at most 10"]
    ),
    "zip": (
        lambda: (pictures("files"), packed("photos", "files")), {"held_out": 40}, {},
        ["held_out: found 40 of 40 images"],
    ),
    "attention": (
        lambda: pictures("photos"), {}, {"networks/small/attention": [16]},
        ["small.attention: found 16 for images of 8 x 8 pixels", "8, 4"],
    ),
    "halved": (
        lambda: pictures("photos", side=9), {}, {}, ["small.multipliers: found 2", "9 x 9"],
    ),
    "classes": (
        lambda: pictures("photos"), {}, {"networks/small/classes": 3},
        ["small.classes: found 3", "2, as the images have, or 0"],
    ),
    "no classes": (
        lambda: (pictures("files", classes=0), packed("photos", "files")), {"classes": None}, {},
        ["features.extractor: found 'classifier' for images of 0 classes"],
    ),
    "no classes of a network": (
        lambda: pictures("photos", classes=0), {"classes": None},
        {"networks/small/classes": 3, "features": {"extractor": "inception"}},
        ["small.classes: found 3", "0, as the images have none"],
    ),
    "results inside": (
        lambda: pictures("photos"), {"path": "."}, {},
        ["dataset.path: found '.', which holds the study's own figures in results/"],
    ),
    "a folder of diffusers without weights": (
        lambda: (pictures("photos"), Path("m").mkdir()), {},
        {"init": {"m": {"format": "diffusers", "file": "m"}}},
        ["init.m", "found no .safetensors in 'm'"],
    ),
    "not in folders": (
        lambda: pictures("photos", classes=0), {}, {}, ["is not in a class folder"]
    ),
    "labels": (
        lambda: (pictures("photos", classes=0), Path("photos/dataset.json").write_text("{}")),
        {"classes": None}, {}, ["dataset.json is not"],
    ),
    "a folder of labels": (
        lambda: (pictures("photos", classes=0), Path("photos/dataset.json").mkdir()),
        {"classes": None}, {}, ["photos: dataset.json is a folder"],
    ),
    "two sizes": (
        lambda: (pictures("photos"), Image.new("L", (9, 9)).save("photos/c1/7.png")), {}, {},
        ["dataset.path: 'c1/7.png' has 9x9 pixels, 'c0/0.png' 8x8", "dataset.resolution"],
    ),
    "no square": (
        lambda: (pictures("photos"), Image.new("L", (8, 9)).save("photos/c1/7.png")), {}, {},
        ["'c1/7.png' has 8x9 pixels"],
    ),
    "no image": (
        lambda: (pictures("photos"), Path("photos/c1/7.png").write_text("<html>")),
        {"resolution": 8}, {}, ["'c1/7.png' cannot be read: its content is", "on_error: skip"],
    ),
    "epochs": (
        lambda: pictures("photos"), {}, {"features/classifier/epochs": 2},
        ["classifier.batch: found 64 for 2 epochs of 30 images"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("make, own, changes, words", LOOKS.values(), ids=LOOKS)
def test_what_no_job_could_do_is_told_by_a_look_at_the_source(
    tmp_path, monkeypatch, capsys, make, own, changes, words, soon
):
    monkeypatch.chdir(tmp_path)
    make()
    block = {key: value for key, value in (OWN | own).items() if value is not None}
    Path("config.yaml").write_text(yaml.safe_dump(laid({"dataset": block, **changes})))
    assert main(["plan"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and all(word in said[0] for word in words), said


def test_the_study_of_own_images_runs_from_15_images_on(tmp_path, monkeypatch):
    """As README says: 12 to train with, for the grid, and 3 to test with."""
    monkeypatch.chdir(tmp_path)
    config = load.read(ROOT / "config.yaml", ROOT / "workflow/studies/images.yaml")
    pictures("photos", count=14, side=16)
    with pytest.raises(ConfigError, match="at most 11, the images to train with"):
        Config.read(config).fit(look.facts)
    pictures("photos", count=15, side=16)
    assert Config.read(config).fit(look.facts).images == 15


def test_a_damaged_image_hides_no_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures("photos")
    Path("photos/c0/0.png").write_text("torn")
    dataset = Config.read(changed("dataset", OWN | {"on_error": "skip"})).dataset
    assert look.facts(dataset) == ((3, 8, 8), 40, 0, 2)


@pytest.mark.parametrize("own", [{"on_error": "skip"}, {"max_images": 39}])
def test_an_image_that_the_job_may_leave_out_stops_no_plan(tmp_path, monkeypatch, own):
    monkeypatch.chdir(tmp_path)
    pictures("photos")
    Path("photos/c0/20.png").write_text("torn")
    facts = look.facts(Config.read(changed("dataset", OWN | own)).dataset)
    assert facts.images == 40 and facts.shape == (3, 8, 8)


def test_of_many_images_some_headers_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures("photos", count=300)
    seen = []
    read = decode.size
    monkeypatch.setattr(decode, "size", lambda file: seen.append(file.name) or read(file))
    look.facts(Config.read(changed("dataset", OWN)).dataset)
    assert look.LOOKS / 2 <= len(seen) <= look.LOOKS and len(set(seen)) == len(seen)
