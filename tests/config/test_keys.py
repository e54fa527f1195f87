"""What a key may not be: one line names it, what was found and what is allowed."""

import pytest

from ect.config.config import Config, ConfigError
from tests.helpers.configs import CUT, PICKLE, SEARCH, changed

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
