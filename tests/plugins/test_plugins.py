"""Plugins: copies of built-in parts give the same bits, and settings name what they use."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ect import plugins
from ect.cli.main import main
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.data.batches import Images
from ect.evaluation import evaluate, metrics, sample
from ect.models import build, draw, trust
from ect.process import VPLinear
from ect.report import maps
from ect.runtime import checkpoint
from ect.study import settings as study_settings
from ect.training import parts, train
from tests.helpers.configs import DEFAULT
from tests.helpers.plugins import REST


def trained(study, name, data, out):
    """The folders of a milestone and of a tuning run from it."""
    start = Milestone(name, 0, 1)
    train.run(study_settings.train(study, start), data, out / name)
    settings = study_settings.train(study, Tuned(start, name, name, 1, 0))
    train.run(settings, data, out / f"{name}_tuned", init=out / name / "model.safetensors")
    return out / name, out / f"{name}_tuned"


def test_a_copy_gives_the_bits_of_what_it_copies_and_again_from_its_record(
    config, digits_file, tmp_path
):
    study = Config.read(config)
    both = [trained(study, name, digits_file, tmp_path / "o") for name in ("mine", "theirs")]
    for own, built_in in zip(*both):
        assert (own / "metrics.jsonl").read_bytes() == (built_in / "metrics.jsonl").read_bytes()
        here, there = (checkpoint.load(f / "model.safetensors")[0] for f in (own, built_in))
        assert all(torch.equal(here[key], there[key]) for key in here) and len(here) > 10
    images = []
    for name, (_, tuned) in zip(("mine", "theirs"), both):
        sampling = study_settings.sample(study, name)
        sample.run(sampling, tuned / "model.safetensors", tmp_path / "o" / name)
        images.append((tmp_path / "o" / name / "samples.npz").read_bytes())
    assert images[0] == images[1]

    start, tuned = both[0]
    words = ["train", str(tuned / "run.json"), "--data", str(digits_file)]
    assert main([*words, "--init", str(start / "model.safetensors"), "--out", "again"]) == 0
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (tuned / "model.safetensors").read_bytes()


def test_a_model_names_the_plugin_of_its_process_alone(config, digits_file, tmp_path, capsys):
    study = Config.read(config)
    settings = study_settings.train(study, Milestone("mine", 0, 1)) | study_settings.train(
        study, Tuned(Milestone("mine", 0, 1), "mine", "theirs", 1, 0)
    )
    assert list(settings["plugins"]) == ["maps.py", "rest.py"]
    about = build.description(settings, Images(digits_file))
    digest = hashlib.sha256(REST.encode()).hexdigest()
    assert about["plugins"] == {"rest.py": digest}
    built_in = study_settings.train(study, Milestone("theirs", 0, 1))
    assert "plugins" not in build.description(built_in, Images(digits_file))

    network = build.make_network(about["network"], about["shape"])
    checkpoint.save("model.safetensors", network.state_dict(), **about)
    f, process, _ = build.load_model("model.safetensors", ["rest.py"])
    assert type(process).__name__ == "Cosine" and f.process is process
    keys = ("network", "process", "parameterization", "c_noise")
    imported = {k: v for k, v in settings.items() if k not in keys}
    imported["plugins"] = {"maps.py": settings["plugins"]["maps.py"]}
    with pytest.raises(ValueError, match=r"'rest.py' .* not named"):
        parts.settings_with_start(imported, "model.safetensors", Images(digits_file))
    with trust.allowed(["rest.py"]):
        whole = parts.settings_with_start(imported, "model.safetensors", Images(digits_file))
    assert whole["process"] == "Cosine" and whole["plugins"] == settings["plugins"]

    sampling = json.dumps(study_settings.sample(study, "one_step"))
    words = ["sample", sampling, "--model", "model.safetensors", "--out", "drawn"]
    words += ["--plugins", "rest.py"]
    for spoil, said in (
        (lambda: Path("rest.py").write_text(REST + "\n# edited"), "rest.py: edited since"),
        (lambda: Path("rest.py").unlink(), "rest.py: No such file"),
    ):
        spoil()
        plugins._run.cache_clear()
        assert main(words) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("ect sample: plugins: ") and said in lines[0]


def test_a_features_plugin_is_the_space_of_the_distances(config, digits_file, tmp_path):
    study = Config.read(config)
    settings = study_settings.evaluate(study, None)
    evaluate.run(settings, None, digits_file, tmp_path / "floor.json")
    found = json.loads((tmp_path / "floor.json").read_text())
    test, real = (Images(digits_file, split).pixels[:][..., 0] for split in ("test", "train"))
    wanted = metrics.frechet(*(pixels.astype(np.float64).mean(1) for pixels in (test, real)))
    assert found["features"] == "rows" and found["fd"] == pytest.approx(wanted, rel=1e-9)


def test_a_sampler_gets_a_noise_for_each_of_its_times(config):
    study = Config.read(config)
    settings, about = study_settings.sample(study, "hops"), {"shape": [1, 8, 8], "network": {}}
    about |= {"shift": 0.0, "scale": 1.0}
    assert settings["options"] == {"times": [3.0, 1.0]}
    assert draw.draw(None, None, about, settings).shape == (20, 8, 8, 1)
    assert study.samplers["hops"].evaluations == 1
    assert study_settings.sample(study, "mine")["options"] == {"steps": 2, "rho": 7.0}


def test_settings_name_the_plugins_that_they_use(config):
    study, plain = Config.read(config), Config.read(config | {"plugins": ["maps.py", "rest.py"]})
    config["features"] = DEFAULT["features"]
    for pretrain, schedule, tune in (
        (p, s, r)
        for p in ("mine", "theirs")
        for s in ("mine", "theirs")
        for r in ("mine", "theirs")
    ):
        model = Tuned(Milestone(pretrain, 0, 1), schedule, tune, 1, 0)
        settings = study_settings.train(study, model)
        wanted = {"maps.py"} if schedule == "mine" else set()
        wanted |= {"rest.py"} if "mine" in (pretrain, tune) else set()
        assert set(settings.get("plugins", {})) == wanted
        assert str(settings) == str(
            study_settings.train(plain, model)
        )  # the order of the list does not matter
    for name in study.samplers:
        assert ("plugins" in study_settings.sample(study, name)) == (name in ("mine", "hops"))
    assert (
        "plugins" in study_settings.feature_space(study)
        and "plugins" in study_settings.trace(study)["features"]
    )
    built_in = Config.read(config)
    assert "plugins" not in study_settings.feature_space(built_in)
    assert set(study_settings.plot_maps(built_in)["plugins"]) == {"maps.py"}


def test_the_figure_of_maps_draws_a_plugins_map(config, tmp_path):
    settings = study_settings.plot_maps(Config.read(config))
    both = [
        maps.stages(block["map"], block["options"], settings["plugins"])
        for block in (settings["schedules"]["mine"], settings["schedules"]["theirs"])
    ]
    for (progress, own), (at, built_in) in zip(*both):
        assert progress == at and np.array_equal(own, built_in)
    only = {"width_in": 3.0, **settings, "schedules": {"m": settings["schedules"]["mine"]}}
    assert main(["draw", "maps", json.dumps(only), "--out", "figure"]) == 0
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_process_may_be_one_of_ours_with_other_numbers(config):
    Path("other.py").write_text(
        "from ect.plugins import process\nfrom ect.process import VPLinear\n"
        "@process\nclass Slow(VPLinear):\n    beta_d = 14.9\n"
    )
    digest = hashlib.sha256(Path("other.py").read_bytes()).hexdigest()
    made = build.make_process({"process": "Slow", "plugins": {"other.py": digest}})
    assert isinstance(made, VPLinear) and made.beta_d == 14.9
