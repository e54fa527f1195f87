"""What a config means: its cells, blocks that are like others, and the settings of its jobs."""

import json
import shlex

import pytest

from ect import registry
from ect.config import checks
from ect.config.base import NAMED
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config, ConfigError
from ect.config.dataset import SOURCE_KEYS
from ect.networks import kernels
from ect.runtime.versions import MASKS, NATIVE
from ect.study import settings as study_settings
from tests.helpers.configs import DEFAULT, PICKLE, ROOT, changed

SMALL = DEFAULT["networks"]["small"]

BARE = {"format": "state_dict", "file": str(PICKLE), "network": "small", "process": "flow"}
BARE |= {"parameterization": "velocity", "c_noise": "time"}


def test_a_dataset_tells_its_job_the_keys_that_are_set(tmp_path):
    digits = Config.read(DEFAULT).dataset.resolved()
    assert digits == DEFAULT["dataset"] | {"split_seed": 0}
    images = {"source": "images", "path": str(tmp_path), "normalize": "unit", "held_out": 5}
    images |= {"split_seed": 1, "channels": 1, "resolution": 8, "on_error": "skip"}
    images["classes"] = "folders"
    dataset = Config.read(changed("dataset", images)).dataset
    assert dataset.resolved() == images and dataset.folder == str(tmp_path) and not dataset.archive
    archive = Config.read(changed("dataset", images | {"path": str(ROOT / "README.md")})).dataset
    assert archive.archive == str(ROOT / "README.md") and not archive.folder
    assert tuple(SOURCE_KEYS) == registry.SOURCES


def test_several_mistakes_are_all_told():
    config = changed("pretrain/ve/process", "vee")
    config["tune"]["ect"]["weight"] = "snr"
    with pytest.raises(ConfigError) as caught:
        Config.read(config)
    assert len(str(caught.value).splitlines()) == 2


def test_a_common_cell_of_two_experiments_is_one_cell():
    study = Config.read(DEFAULT)
    schedules, split = set(study.cells("schedules")), set(study.cells("split"))
    assert schedules & split
    assert len(study.all_cells()) == len({cell.folder for cell in study.all_cells()})


def test_settings_do_not_change_with_how_a_number_is_written():
    whole, real = (Config.read(changed("tune/ect/distance/c", c)) for c in (1, 1.0))
    assert str(study_settings.train(whole, whole.shown("loss"))) == str(
        study_settings.train(real, real.shown("loss"))
    )


def test_a_milestone_does_not_know_where_its_chain_ends():
    start = Milestone("ve", 0, 12)
    short, long = (Config.read(changed("pretrain/ve/kimg", kimg)) for kimg in (54, 120))
    assert study_settings.train(short, start) == study_settings.train(long, start)


def test_only_the_cells_of_a_schedule_depend_on_it():
    before, after = Config.read(DEFAULT), Config.read(changed("schedules/constant/q", 3))
    models = {cell.model for cell in before.all_cells()}
    touched = {
        m for m in models if study_settings.train(before, m) != study_settings.train(after, m)
    }
    assert touched == {m for m in models if isinstance(m, Tuned) and m.schedule == "constant"}


def test_total_minus_share_is_exact():
    rows = Config.read(DEFAULT).experiments["split"].rows[0]
    assert all(pretrain + tune == rows.total_kimg for pretrain, tune in rows.budgets())


def test_a_block_like_another_differs_in_the_keys_it_names():
    config = changed("tune/slope", {"like": "ect", "weight": "gap", "distance": {"c": 0.5}})
    config["tune"]["slope2"] = {"like": "slope", "batch": 32}
    tune = Config.read(config).tune
    wanted = {"weight": "gap", "distance": {"kind": "huber", "c": 0.5}}
    assert tune["slope"].model_dump() == tune["ect"].model_dump() | wanted
    assert tune["slope2"].model_dump() == tune["slope"].model_dump() | {"batch": 32}


def test_a_circle_of_likes_is_named():
    config = changed("tune/a", {"like": "b"})
    config["tune"]["b"] = {"like": "a"}
    with pytest.raises(ConfigError, match=r"tune\.b\.like: found 'a'"):
        Config.read(config)


def test_a_block_set_to_null_is_left_out():
    study = Config.read(changed("experiments/split", None))
    assert list(study.experiments) == ["methods", "schedules", "solvers"]


@pytest.mark.parametrize("key", NAMED)
def test_so_is_a_block_of_every_kind_that_has_a_name(key):
    known = [name for name, value in Config.model_fields.items() if "dict" in str(value.annotation)]
    assert set(NAMED) == set(known)
    study = Config.read(changed(key, DEFAULT.get(key, {}) | {"unused": None}))
    assert "unused" not in getattr(study, key)


def test_a_start_may_be_like_another():
    init = {"a": {"format": "edm", "file": "a.pkl", "pretrain_mimg": 5}}
    study = Config.read(changed("init", init | {"b": {"like": "a", "file": "b.pkl"}}))
    assert (study.init["b"].file, study.init["b"].pretrain_mimg) == ("b.pkl", 5)


def test_a_model_has_one_sampler_of_a_kind_at_each_number_of_evaluations():
    shifted = {"like": "two_step", "times": [0.8], "label": "shifted"}
    config = changed("samplers/shifted", shifted)
    config["experiments"]["solvers"]["rows"][1]["samplers"].append("shifted")
    wanted = r"solvers: samplers 'two_step' and 'shifted' are both multistep with 2 NFE; allowed"
    with pytest.raises(ConfigError, match=wanted):
        Config.read(config)
    config["experiments"]["solvers"]["kind"] = "methods"
    assert "shifted" in {cell.sampler for cell in Config.read(config).cells("solvers")}


def test_an_experiment_may_not_take_the_name_of_another_figure():
    with pytest.raises(ConfigError, match=r"experiments\.loss: allowed: any name but steps, maps"):
        Config.read(changed("experiments/loss", DEFAULT["experiments"]["split"]))


def test_a_teacher_is_part_of_the_tuned_cells_alone():
    config = changed("tune/ecd", {"like": "ect", "target": "heun"})
    rows = config["experiments"]["methods"]["rows"]
    rows.append({**rows[1], "tune": "ecd"})
    study = Config.read(config)
    targets = {
        cell.model: study_settings.train(study, cell.model)["target"]
        for cell in study.cells("methods")
    }
    for model, target in targets.items():
        assert (target == "heun") == (isinstance(model, Tuned) and model.recipe == "ecd")


def test_meanflow_needs_the_flow_and_a_network_that_is_told_the_span():
    config = changed("schedules/meanflow", {"map": "meanflow"})
    distance = {"kind": "squared", "c": 0.0}
    config["tune"]["average"] = {"like": "ect", "weight": "uniform", "distance": distance}
    config["networks"]["span"] = {"like": "small", "span": True}
    config["pretrain"]["average"] = {"like": "flow", "network": "span"}
    row = config["experiments"]["methods"]["rows"][1]
    row |= {"tune": "average", "schedules": ["meanflow"]}
    for start in ("ve", "flow"):
        with pytest.raises(
            ConfigError, match=rf"\(meanflow\) with start '{start}'; allowed: .*span"
        ):
            Config.read(config | {"experiments": {"methods": rows_of(row, start)}})
    study = Config.read(config | {"experiments": {"methods": rows_of(row, "average")}})
    assert study_settings.train(study, study.cells("methods")[0].model)["network"]["span"] is True


def rows_of(row, start):
    return {"question": "?", "kind": "methods", "rows": [row | {"pretrain": [start]}]}


def test_a_figure_is_not_distilled_from_a_random_start_either():
    config = changed("tune/ecd", {"like": "ect", "target": "heun"})
    config["figures"]["samples"] |= {"kimg": 0, "tune": "ecd"}
    with pytest.raises(ConfigError, match=r"figures\.samples\.tune: 'ecd' .* teacher"):
        Config.read(config)


def test_an_imported_start_has_one_milestone_and_brings_its_own_network():
    config = changed("init", {"edm": {"format": "edm", "file": str(PICKLE)}})
    config["dataset"]["normalize"] = "unit"
    row = config["experiments"]["methods"]["rows"][1] | {"pretrain": ["edm"], "kimg": [0]}
    config["experiments"]["methods"]["rows"] = [row]
    study = Config.read(config)
    cell = study.cells("methods")[0]
    assert cell.model.start == Milestone("edm", 0, 0)
    assert "network" not in study_settings.train(study, cell.model)
    assert study_settings.facts(study, cell)["process"] is None
    row["kimg"] = [6]
    with pytest.raises(ConfigError, match=r"kimg: found 6 of 'edm'; allowed: 0"):
        Config.read(config)


def test_an_import_is_told_what_its_one_file_does_not_say(tmp_path):
    """The format alone where the file says all: imports of older versions do not run again."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "deep" / "unet").mkdir(parents=True)
    weights = "diffusion_pytorch_model.safetensors"
    for name in ("config.json", weights, "w.safetensors", "w.bin"):
        (tmp_path / "unet" / name).touch()
        (tmp_path / "deep" / "unet" / name).touch()
    (tmp_path / "my.json").touch()
    file = str(PICKLE)
    starts = {
        "edm": {"format": "edm", "file": file},
        "ours": {"format": "ect", "file": file},
        "folder": {"format": "diffusers", "file": str(tmp_path)},
        "hub": {"format": "diffusers", "file": "owner/a-name.1"},
        "held": {"format": "diffusers", "file": "owner/a-name.1@0b28d3b"},
        "bare": BARE | {"sd": 0.5},
    }
    study = Config.read(changed("init", starts))
    words = {name: shlex.split(study_settings.import_model(study, name)) for name in starts}
    assert (
        study_settings.import_model(study, "edm"),
        study_settings.import_model(study, "ours"),
    ) == ("edm", "ect")
    assert words["folder"] == ["diffusers", str(tmp_path)]
    assert words["hub"] == ["diffusers", "owner/a-name.1"]
    assert words["held"] == ["diffusers", "owner/a-name.1@0b28d3b"]
    kind, flag, about = words["bare"]
    meaning = {k: v for k, v in BARE.items() if k not in ("format", "file")} | {"sd": 0.5}
    network = study.networks["small"].resolved()
    assert (kind, flag) == ("state_dict", "--about")
    assert json.loads(about) == meaning | {"network": network}
    files = {name: block.files() for name, block in study.init.items()}
    read = [str(tmp_path / "unet" / name) for name in ("config.json", weights)]
    assert files == {
        "edm": [file],
        "ours": [file],
        "folder": read,
        "hub": [],
        "held": [],
        "bare": [file],
    }


@pytest.mark.parametrize(
    "key, value",
    [("microbatch", 16), ("precision", "bf16"), ("kernels", "native"), ("compile", True)],
)
def test_a_choice_is_in_the_settings_only_where_it_is_made(key, value):
    """So the settings of other jobs stay the same, and nothing is trained again."""
    model, plain = Milestone("ve", 0, 6), Config.read(DEFAULT)
    given = study_settings.train(Config.read(changed(f"pretrain/ve/{key}", value)), model)
    assert given["recipe"].pop(key) == (f"native-{NATIVE}" if value == "native" else value)
    assert given == study_settings.train(plain, model)


@pytest.mark.parametrize("path", ["pretrain/ve", "tune/ect"])
def test_only_settings_with_dropout_have_the_version_of_its_masks(path):
    """So where masks change, no other settings do."""
    start = Milestone("ve", 0, 6)
    model = start if path == "pretrain/ve" else Tuned(start, "sigmoid", "ect", 30, 0)
    dropped, plain = (
        study_settings.train(Config.read(changed(f"{path}/dropout", p)), model)["recipe"]
        for p in (0.1, 0.0)
    )
    assert dropped == plain | {"dropout": 0.1, "masks": MASKS} and "masks" not in plain


def test_a_stated_sd_is_in_the_settings_of_the_chain_and_of_tuning_from_it():
    """Without one, neither the settings nor the whole config (the page's hash) know the key."""
    plain, stated = Config.read(DEFAULT), Config.read(changed("pretrain/ve/sd", 0.5))
    start = Milestone("ve", 0, 6)
    for model in (start, Tuned(start, "sigmoid", "ect", 30, 0)):
        settings = study_settings.train(stated, model)
        assert settings.pop("sd") == 0.5 and settings == study_settings.train(plain, model)
    assert stated.model_dump()["pretrain"]["ve"].pop("sd") == 0.5
    assert not any("sd" in block for block in plain.model_dump(mode="json")["pretrain"].values())


@pytest.mark.parametrize("part", [{"channels": 24}, {"architecture": "adm"}])
@pytest.mark.parametrize("recipe", ["pretrain/ve", "tune/ect"])
def test_native_kernels_name_the_networks_that_they_know(part, recipe):
    config, (block, name) = changed("networks/small", {**SMALL, **part}), recipe.split("/")
    config[block][name]["kernels"] = "native"
    with pytest.raises(ConfigError, match=r"kernels 'native' with a network .*; allowed: ddpmpp"):
        Config.read(config)
    config["networks"]["small"] = SMALL
    Config.read(config)


def test_native_kernels_name_the_widest_layer_that_they_know():
    assert checks.WIDEST == kernels.MOST
    config = changed("networks/small", {**SMALL, "channels": 2080})
    config["pretrain"]["ve"]["kernels"] = "native"
    with pytest.raises(ConfigError, match="with layers 8320 wide; allowed: at most 4096"):
        Config.read(config)


def test_a_classifier_needs_classes(tmp_path):
    (tmp_path / "cat").mkdir()
    images = {"source": "images", "path": str(tmp_path), "held_out": 10}
    with pytest.raises(ConfigError, match=r"dataset\.classes: found none .* no dataset\.json"):
        Config.read(changed("dataset", images))
    Config.read(changed("dataset", images | {"classes": "folders"}))
    (tmp_path / "dataset.json").write_text("{}")
    Config.read(changed("dataset", images))


def test_native_kernels_have_no_limit():
    config = changed("schedules/sigmoid", {"map": "continuous"})
    for recipe in config["tune"].values():
        recipe["kernels"] = "native"
    with pytest.raises(ConfigError, match="continuous with kernels 'native'; allowed: torch"):
        Config.read(config)


def limited(**keys):
    """A config whose schedule `sigmoid` is the limit, with further keys of all recipes."""
    config = changed("schedules/sigmoid", {"map": "continuous"})
    for recipe in config["tune"].values():
        if "like" not in recipe:
            recipe |= {"distance": {"kind": "squared", "c": 0.0}, "weight": "uniform"}
        recipe |= {"weight": "uniform", "target": "own", **keys}
        recipe.pop("precision", None)
    config["experiments"] = {"methods": config["experiments"]["methods"]}
    config["experiments"]["methods"]["rows"][1:] = [
        {"pretrain": ["ve"], "kimg": [30], "tune": "ect", "tune_kimg": 30,
         "schedules": ["sigmoid"], "samplers": ["one_step"]}
    ]  # fmt: skip
    return config


def test_differences_let_native_kernels_have_a_limit_and_are_settings_where_chosen():
    model = Tuned(Milestone("ve", 0, 30), "sigmoid", "ect", 30, 0)
    plain = study_settings.train(Config.read(limited()), model)["recipe"]
    assert not {"derivative", "derivative_step"} & set(plain)
    study = Config.read(limited(derivative="difference", kernels="native", derivative_step=0.01))
    found = study_settings.train(study, model)["recipe"]
    assert (found["derivative"], found["derivative_step"]) == ("difference", 0.01)


DIFFERENCES = {
    "map": (
        {"schedules/sigmoid/map": "sigmoid"},
        "(sigmoid) with recipe 'ect', found derivative 'difference'",
    ),
    "step": ({"tune/ect/derivative": "jvp"}, "derivative_step is 0.01 with derivative 'jvp'"),
    "bf16": ({"tune/ect/precision": "bf16"}, "precision bf16; allowed: fp32, tf32"),
    "size": ({"tune/ect/derivative_step": 0.2}, "derivative_step: found 0.2; allowed: "),
}


@pytest.mark.parametrize("changes, words", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_that_is_not_used_or_too_coarse_is_named(changes, words):
    config = limited(derivative="difference", derivative_step=0.01)
    for path, value in changes.items():
        one, two, key = path.split("/")
        config[one][two][key] = value
    with pytest.raises(ConfigError) as caught:
        Config.read(config)
    assert words in str(caught.value)


def test_a_learned_weight_needs_the_limit_and_a_network_with_uncertainty():
    with pytest.raises(ConfigError, match="'ect' is adaptive, with schedule 'sigmoid' and"):
        Config.read(limited(adaptive=True))
    config = limited(adaptive=True)
    config["networks"]["small"] |= {
        "architecture": "edm2", "uncertainty": True, "channels": 64, "multipliers": [1, 1],
    }  # fmt: skip
    model = Tuned(Milestone("ve", 0, 30), "sigmoid", "ect", 30, 0)
    assert study_settings.train(Config.read(config), model)["recipe"]["adaptive"] is True
    config["schedules"]["sigmoid"] = {"map": "sigmoid"}
    with pytest.raises(ConfigError, match="with recipe 'ect', found adaptive; allowed: cont"):
        Config.read(config)
