"""A config is checked before the first job: a line names the key, what was found and allowed."""

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
from tests.helpers.configs import CUT, DEFAULT, PICKLE, ROOT, SEARCH, changed

SMALL = DEFAULT["networks"]["small"]

BARE = {"format": "state_dict", "file": str(PICKLE), "network": "small", "process": "flow"}
BARE |= {"parameterization": "velocity", "c_noise": "time"}
IMAGES = {"source": "images", "path": "/dev/null", "held_out": 10}
LONG = {"pretrain": "ve", "kimg": 30, "ema_std": 0.15}
ADAM = {"name": "adam", "lr": 1.0e-3}
ADM = {"architecture": "adm", "channels": 224, "multipliers": [1, 2], "blocks": 1, "attention": [8]}
EDM2 = ADM | {"architecture": "edm2"}
MISTAKES = [
    ("lerning_rate", 1, ["lerning_rate", "unknown key", "pretrain"]),
    ("pretrain/ve/kmg", 1, ["pretrain.ve.kmg", "unknown key", "kimg, every"]),
    ("features/classifier/widht", 1, ["features.classifier.widht", "channels, epochs"]),
    ("experiments/split/rows/0/share", [1], ["experiments.split.rows.0.share", "shares"]),
    ("pretrain/ve/optimizer/lr", "1e-4", ["pretrain.ve.optimizer.lr", "'1e-4'", "1.0e-4"]),
    ("pretrain/ve/optimizer/lr", -1.0, ["pretrain.ve.optimizer.lr", "-1.0", "greater than 0"]),
    ("pretrain/ve/batch", 6.5, ["pretrain.ve.batch", "6.5", "integer"]),
    ("pretrain/ve/batch", True, ["pretrain.ve.batch", "True", "integer"]),
    ("pretrain/ve/microbatch", 33, ["pretrain.ve", "microbatch is 33", "at most batch = 32"]),
    ("pretrain/ve/process", "vee", ["pretrain.ve.process", "'vee'", "'ve', 'flow'"]),
    ("pretrain/ve/kernels", "fast", ["pretrain.ve.kernels", "'fast'", "'torch' or 'native'"]),
    (
        "pretrain/flow",
        {"like": "ve", "kernels": "native", "precision": "fp16"},
        ["pretrain.flow", "precision is fp16", "fp32, tf32, bf16"],
    ),
    (
        "pretrain/flow",
        {"like": "ve", "kernels": "native", "compile": True},
        ["pretrain.flow", "compile is true with kernels 'native'", "torch"],
    ),
    ("pretrain/ve/network", "big", ["pretrain.ve.network", "'big'", "small"]),
    ("pretrain/ve/kimg", 100, ["pretrain.ve", "100", "multiples of every"]),
    (
        "pretrain/ve/every",
        None,
        ["pretrain.ve", "every is None, milestones None", "one of"],
    ),
    ("pretrain/ve/milestones", [6], ["pretrain.ve", "every is 6, milestones [6]", "one of"]),
    (
        "pretrain/flow",
        {"like": "ve", "every": None, "milestones": [12, 6, 54]},
        ["pretrain.flow", "[12, 6, 54]", "growing numbers, the last one kimg = 54"],
    ),
    (
        "pretrain/flow",
        {"like": "ve", "every": None, "milestones": [12, 48]},
        ["pretrain.flow", "[12, 48]", "the last one kimg = 54"],
    ),
    ("experiments/split/rows/0/replicates", 3, ["rows.0", "seeds and replicates", "allowed: one"]),
    ("experiments/split/rows/0/replicates", 0, ["rows.0.replicates", "0", "equal to 1"]),
    ("pretrain/ve/optimizer/decay_from", 0.5, ["pretrain.ve", "decay_from is 0.5", "1.0 only"]),
    ("tune/ect/weight", "snr", ["tune.ect.weight", "'snr'", "'gap'"]),
    ("tune/ect/distance", {"kind": "squared", "c": 1.0}, ["tune.ect.distance", "1.0", "huber"]),
    ("schedules/sigmoid", {"map": "sigmod"}, ["schedules.sigmoid", "'sigmod'", "constant"]),
    ("schedules/fixed/stages", 3, ["schedules.fixed", "'stages' of fixed", "q, k, b"]),
    ("schedules/sigmoid/stages", 2.5, ["schedules.sigmoid", "stages is 2.5", "int"]),
    ("schedules/sigmoid/q", "two", ["schedules.sigmoid", "q is 'two'", "float"]),
    ("schedules/sigmoid/q", 0.5, ["schedules.sigmoid", "q is 0.5", "> 1"]),
    ("schedules/piecewise/start", 1.0, ["schedules.piecewise", "start is 1.0", "< 1"]),
    ("samplers/heun/times", [1.0], ["samplers.heun", "steps", "no times"]),
    ("samplers/heun/sigma_min", 0.003, ["samplers.heun", "sigma_min", "multistep only"]),
    ("samplers/one_step/sigma_min", 0.003, ["rows.0", "'one_step'", "'flow'", "allowed: edm"]),
    ("samplers/two_step/steps", 3, ["samplers.two_step", "multistep", "times"]),
    ("experiments/split/rows/0/shares", [0, 33], ["rows.0.shares", "'ve'", "0, 6, 12"]),
    ("experiments/methods/rows/0/kimg", [400], ["rows.0.kimg", "400", "0, 6, 12"]),
    ("experiments/split/rows/0/kimg", [100], ["rows.0", "kimg and tune_kimg, or total_kimg"]),
    ("experiments/split/rows/0/schedules", ["sig"], ["rows.0.schedules", "'sig'", "sigmoid"]),
    ("experiments/split/rows/0/samplers", ["ddim"], ["rows.0.samplers", "'ddim'", "heun"]),
    ("experiments/split/kind", "pie", ["experiments.split.kind", "'pie'", "'split'"]),
    ("figures/loss/kimg", 31, ["figures.loss.kimg", "31", "0, 6, 12"]),
    ("figures/loss/tune", "ect", ["figures.loss.tune", "'ect'", "snapshots >= 1"]),
    ("figures/samples", CUT | {"tune": "etc"}, ["figures.samples.tune", "'etc'", "ect_slope"]),
    ("figures/solver", "ode", ["figures.solver", "'ode'", "heun"]),
    ("features/inception_path", "tests", ["inception_path", "no file tests/inception", "folder"]),
    ("dataset/source", "svhn", ["dataset.source", "'svhn'", "'digits', 'images'"]),
    ("dataset/held_out", ..., ["dataset", "held_out: missing", "'digits'"]),
    ("dataset/path", "photos", ["dataset", "path is set for 'digits'", "split_seed, max_images"]),
    ("dataset", IMAGES, ["dataset", "path: found '/dev/null'", "a folder of images, or a .zip"]),
    ("dataset", IMAGES | {"path": None}, ["dataset", "path: missing", "'images'"]),
    ("dataset", IMAGES | {"channels": 4}, ["dataset.channels", "4", "1 or 3"]),
    ("dataset", IMAGES | {"on_error": "warn"}, ["dataset.on_error", "'warn'", "'stop' or 'skip'"]),
    ("dataset", IMAGES | {"source": "imagenet64"}, ["dataset", "'/dev/null' without", "train"]),
    (
        "dataset",
        IMAGES | {"source": "imagenet64", "resolution": 32},
        ["dataset", "resolution is 32", "64"],
    ),
    ("features/extractor", "dinov2", ["features", "dinov2_path is None", "TorchScript"]),
    ("pretrain/flow/parameterization", "noise", ["pretrain.flow", "'noise'", "'flow'", "edm"]),
    ("pretrain/ve/c_noise", "ln", ["pretrain.ve.c_noise", "'ln'", "'log_s'"]),
    ("evaluation/precision", "half", ["evaluation.precision", "'half'", "'bf16'"]),
    ("tune/ect/prior", {"mean": 1.0}, ["tune.ect.prior", "karras"]),
    ("tune/ect/prior", {"kind": "karras", "std": 1.0}, ["tune.ect.prior", "std", "neither"]),
    ("tune/ect/prior", {"mean": 0.0, "std": 1.0, "low": 0.1}, ["tune.ect.prior", "low", "neither"]),
    ("tune/ect/prior", {"kind": "karras", "low": 80}, ["tune.ect.prior", "80", "< high = 80"]),
    ("tune/ect/target", "teacher", ["tune.ect.target", "'teacher'", "'heun'"]),
    ("tune/ect/target", "heun", ["rows", "'heun'", "teacher", "0 thousand images"]),
    ("schedules/sigmoid/clock", "steps", ["schedules.sigmoid.clock", "'steps'", "'noise'"]),
    ("schedules/sigmoid", {"map": "ict", "s0": 20, "s1": 10}, ["s0 is 20", "< s1 = 10"]),
    ("schedules/sigmoid", {"map": "continuous", "clock": "time"}, ["clock is 'time'", "noise"]),
    ("schedules/sigmoid", {"map": "continuous", "warmup": 0}, ["warmup is 0", "0 < warmup"]),
    ("schedules/sigmoid", {"map": "continuous"}, ["(continuous)", "'huber'", "distance squared"]),
    ("networks/small/architecture", "dit", ["networks.small.architecture", "'dit'", "'adm'"]),
    ("networks/small/classes", -1, ["networks.small.classes", "-1", "0"]),
    ("networks/small/channels", 72, ["networks.small.channels", "72", "144", "multiples of 32"]),
    ("networks/adm", ADM, ["networks.adm.channels", "224 wide", "3 heads", "multiple of 64"]),
    ("networks/adm", ADM | {"multipliers": [2, 1], "attention": []}, ["adm.channels", "224 wide"]),
    ("networks/edm2", EDM2, ["networks.edm2.channels", "224 wide", "3 heads", "multiple of 64"]),
    (
        "networks/edm2",
        EDM2 | {"embedding": "fourier"},
        ["edm2", "embedding is 'fourier'", "no such"],
    ),
    ("networks/edm2", EDM2 | {"span": True}, ["networks.edm2", "span is true", "no such key"]),
    ("networks/small/uncertainty", True, ["networks.small", "uncertainty is true", "'ddpmpp'"]),
    ("tune/ect/dropout_at", 8, ["tune.ect", "dropout_at is 8 with dropout 0", "dropout > 0"]),
    ("tune/ect/ema_std", [], ["tune.ect.ema_std", "at least 1"]),
    ("tune/ect/ema_std", [0.1, 0.1], ["tune.ect.ema_std", "0.1 more than once"]),
    ("tune/ect/ema_std", [0.1, 0.3], ["tune.ect.ema_std", "0.3", "0.2886"]),
    ("tune/ect/ema_std", 0.3, ["tune.ect.ema_std", "0.3", "0.2886"]),
    ("tune/ect/optimizer/decay", "cosine", ["tune.ect.optimizer.decay", "'inverse_sqrt'"]),
    (
        "tune/ect/optimizer/decay",
        "inverse_sqrt",
        ["optimizer", "decay_kimg None", "both or neither"],
    ),
    ("tune/ect/optimizer/decay_kimg", 2.0, ["optimizer", "decay is None", "both or neither"]),
    (
        "tune/ect/optimizer",
        ADAM | {"decay": "inverse_sqrt", "decay_kimg": 2.0, "decay_from": 0.5},
        ["tune.ect.optimizer", "decay is inverse_sqrt with decay_from 0.5", "one of them"],
    ),
    ("averages", {"a": LONG | {"pretrain": "vee"}}, ["averages.a.pretrain", "'vee'", "mean 've'"]),
    ("averages", {"a": LONG}, ["averages.a.pretrain", "'ve'", "half-life", "with ema_std"]),
    ("averages", {"ve": LONG}, ["averages.ve", "also a name in pretrain"]),
    ("averages", {"a": LONG | {"ema_std": 0.4}}, ["averages.a.ema_std", "0.4", "0.2886"]),
    ("samplers/one_step/labels", [], ["samplers.one_step.labels", "at least 1"]),
    (
        "init",
        {"a": {"format": "edm", "file": "tests"}},
        ["init.a", "'tests', which is no file", "a file"],
    ),
    ("init", {"a": {"format": "tf", "file": str(PICKLE)}}, ["init.a.format", "'tf'", "'edm'"]),
    ("init", {"ve": {"format": "edm", "file": str(PICKLE)}}, ["init.ve", "pretrain"]),
    ("init", {"a": {"format": "edm", "file": str(PICKLE), "sd": 0.5}}, ["init.a: sd", "'edm'"]),
    ("init", {"a": {"format": "diffusers", "file": "a/b/c"}}, ["init.a", "a/b/c", "owner/name"]),
    ("init", {"a": {"format": "diffusers", "file": str(PICKLE)}}, ["init.a", "a folder"]),
    ("init", {"a": BARE | {"c_noise": None}}, ["init.a: found no c_noise", "parameterization"]),
    ("init", {"a": BARE | {"network": "big"}}, ["init.a.network: found 'big'; allowed: small"]),
    ("init", {"a": BARE | {"parameterization": "noise"}}, ["init.a", "'noise'", "edm, velocity"]),
    ("init", {"a": BARE | {"process": "tabulated"}}, ["init.a.process", "'tabulated'", "'ve'"]),
    ("tune/new", {"like": "etc"}, ["tune.new.like", "'etc'", "ect, ect_slope"]),
    ("tune/ect/like", "ect", ["tune.ect.like", "'ect'", "ect_slope"]),
    ("search", SEARCH | {"seed": 1500}, ["search.seed", "1500", "seeds 0 to 1999"]),
    ("search", SEARCH | {"steps": [1]}, ["search.steps.0", "1", "greater than or equal to 2"]),
    ("search", SEARCH | {"low": 50.0}, ["search", "low is 50.0", "< high"]),
    ("search", SEARCH | {"models": [CUT | {"tune": "etc"}]}, ["search.models.0.tune", "'etc'"]),
    ("dataset", ..., ["dataset", "missing"]),
    ("evaluation", None, ["evaluation", "None"]),
    ("evaluation/repeats", 0, ["evaluation.repeats", "0", "greater than or equal to 1"]),
    ("evaluation/export", [], ["evaluation", "export is []", "npz, features"]),
    ("evaluation/export", ["png", "features"], ["evaluation", "png with npz"]),
    ("evaluation/export", ["jpg"], ["evaluation.export.0", "'jpg'", "'png'"]),
    ("evaluation/metrics", ["kd"], ["evaluation", "['kd']", "fd among them"]),
    ("evaluation/metrics", ["fid"], ["evaluation.metrics.0", "'fid'", "'fd', 'kd'"]),
    ("evaluation/metrics", ["fd", "inception_score"], ["evaluation.metrics", "'classifier'"]),
    ("study", "My study", ["study", "'My study'"]),
]


NAMES = [f"{path}={value}" for path, value, _ in MISTAKES]


@pytest.mark.parametrize("path, value, words", MISTAKES, ids=NAMES)
def test_mistake_is_named(path, value, words):
    with pytest.raises(ConfigError) as caught:
        Config.read(changed(path, value))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]


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
