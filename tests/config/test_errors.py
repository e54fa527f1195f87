"""Mistakes that people really make: one message without a traceback, which names the thing and what
is allowed, and an exit code that is not 0."""

import json
import shutil
from pathlib import Path

import pytest

from ect.cli.main import main
from ect.evaluation import classifier, sample
from ect.training import train
from tests.helpers.runs import PRETRAIN, changed

ROOT = Path(__file__).parents[2]
SMALL = changed(PRETRAIN, network__channels=8, network__attention=[], last_kimg=0)
ONE_STEP = {"kind": "multistep", "options": {"times": []}, "images": 12, "batch": 12, "seed": 0}
SPACE = {
    "extractor": "classifier", "inception_mode": "clean", "inception_path": None, "kd_subsets": 1,
}  # fmt: skip
CELL = {
    "pretrain": "ve", "process": "ve", "parameterization": "edm", "kimg": 0, "schedule": None,
    "recipe": None, "tune_kimg": None, "seed": 0, "sampler": "one_step", "label": "1 step",
    "nfe": 1,
}  # fmt: skip
MODEL = "results/tiny/pretrain/ve/s0/k0"


@pytest.fixture(scope="session")
def made(tmp_path_factory, digits_file):
    """A folder with one of each kind of file, and one of each kind of wrong file."""
    folder = tmp_path_factory.mktemp("mistakes")
    run, samples = folder / MODEL, folder / MODEL / "one_step"
    shutil.copy(digits_file, folder / "data.npz")
    train.run(SMALL, folder / "data.npz", run)
    sample.run(ONE_STEP, run / "model.safetensors", samples)
    network = {"channels": 4, "epochs": 1, "batch": 64, "lr": 1e-3}
    classifier.run(network, folder / "data.npz", folder / "features")
    metrics = {"images": 12, "reference_images": 297, "features": "classifier", "fd": 3.0}
    (samples / "metrics.json").write_text(json.dumps(metrics | {"kd": 0.5, "cell": CELL}))
    shutil.copy(ROOT / "config.yaml", folder / "config.yaml")
    for name, text in WRONG_FILES.items():
        (folder / name).write_text(text)
    (folder / "torn.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:5000])
    (folder / "torn.npz").write_bytes((samples / "samples.npz").read_bytes()[:100])
    (folder / "empty").mkdir()
    (folder / "twice").mkdir()
    shutil.copytree(folder / MODEL, folder / "twice" / "broken")
    (folder / "twice" / "broken" / "run.json").write_text('{"settings": {"recipe"')
    return folder


MAPS = '{"schedules": {"a": {"map": "zero", "options": {}}}, "width_in": 5, "colour": 1}'
WRONG_FILES = {
    "text.txt": "hello\n",
    "empty.json": "",
    "list.json": "[1, 2]",
    "no_cell.json": '{"fd": 1.0, "images": 10, "reference_images": 9, "features": "x"}',
    "broken.yaml": "study: digits\ndataset: {source: digits\n",
    "tabs.yaml": "study: digits\ndataset:\n\tsource: digits\n",
    "list.yaml": "- study\n- digits\n",
    "empty.yaml": "",
    "typo.yaml": "pretrain: {ve: {optimiser: {lr: 1.0e-3}}}\n",
    "text_lr.yaml": "pretrain: {ve: {optimizer: {lr: 1e-4}}}\n",
    "negative.yaml": "pretrain: {ve: {batch: -64}}\n",
    "block_is_text.yaml": "dataset: digits\n",
    "block_is_list.yaml": "samplers: [heun, one_step]\n",
    "rows_is_mapping.yaml": "experiments: {methods: {rows: {pretrain: [ve]}}}\n",
    "no_rows.yaml": "experiments: {methods: {rows: []}}\n",
    "bad_name.yaml": "study: My Config\n",
    "schedule.yaml": "schedules: {sigmoid: {map: sigmoidal}}\n",
    "option.yaml": "schedules: {sigmoid: {map: sigmoid, qq: 2}}\n",
    "plugin.yaml": "plugins: [my_schedule.py]\n",
    "plugin_text.yaml": "plugins: my_schedule.py\n",
    "like.yaml": "tune: {mine: {like: etc, weight: gap}}\n",
    "milestone.yaml": "figures: {samples: {kimg: 31}}\n",
    "share.yaml": "experiments: {split: {rows: [{pretrain: [ve], total_kimg: 60, shares: [120],"
    " tune: ect, schedules: [sigmoid], samplers: [one_step]}]}}\n",
    "held_out.yaml": "dataset: {held_out: -1}\n",
    "images.yaml": "evaluation: {images: 5}\n",
    "null.yaml": "evaluation: null\n",
    "number_key.yaml": "1: 2\n",
    "bool.yaml": "evaluation: {images: yes}\n",
    "init.yaml": "init: {mine: {format: edm, file: /}}\n",
}

# name of a study's file: what its message says
STUDIES = {
    "broken.yaml": ["broken.yaml: line 3", "not YAML"],
    "tabs.yaml": ["tabs.yaml: line 3", "not YAML", "\\t"],
    "list.yaml": ["list.yaml", "found a list", "key: value"],
    "empty.yaml": ["empty.yaml", "nothing", "key: value"],
    "no_such.yaml": ["no_such.yaml", "o such file"],
    "text.txt": ["text.txt", "found a text", "key: value"],
    "typo.yaml": ["pretrain.ve.optimiser: unknown key", "optimizer"],
    "text_lr.yaml": ["pretrain.ve.optimizer.lr", "'1e-4'", "1.0e-4"],
    "negative.yaml": ["pretrain.ve.batch", "-64", "greater than or equal to 1"],
    "block_is_text.yaml": ["dataset: found 'digits'", "a mapping, `key"],
    "block_is_list.yaml": ["samplers", "['heun', 'one_step']", "mapping"],
    "rows_is_mapping.yaml": ["experiments.methods.rows", "list"],
    "no_rows.yaml": ["experiments.methods.rows", "at least 1"],
    "bad_name.yaml": ["study", "'My Config'", "a-z"],
    "schedule.yaml": ["schedules.sigmoid", "'sigmoidal'", "sigmoid, "],
    "option.yaml": ["schedules.sigmoid", "'qq'", "q, "],
    "plugin.yaml": ["my_schedule.py"],
    "plugin_text.yaml": ["plugins", "'my_schedule.py'", "a list"],
    "like.yaml": ["tune.mine.like", "'etc'", "ect"],
    "milestone.yaml": ["figures.samples.kimg", "31", "0, 6, 12"],
    "share.yaml": ["experiments.split.rows.0.shares.0", "120", "less than 100"],
    "held_out.yaml": ["dataset.held_out", "-1", "greater than or equal to 0"],
    "images.yaml": ["evaluation.images", "5", "greater than or equal to 10"],
    "null.yaml": ["evaluation", "None"],
    "number_key.yaml": ["1: ", "keys should be strings"],
    "bool.yaml": ["evaluation.images", "True", "integer"],
    "init.yaml": ["init.mine", "file is '/'", "a file"],
}

M, D, S = f"{MODEL}/model.safetensors", "data.npz", f"{MODEL}/one_step/samples.npz"
C, JSON, RUN = "features/classifier.safetensors", json.dumps, f"{MODEL}/run.json"
METRICS = f"{MODEL}/one_step/metrics.json"
SPLIT = {"source": "digits", "normalize": "unit", "held_out": 10, "split_seed": 0}
MEASURE = JSON({"features": SPACE, "cell": CELL})


OUT = ("--out", "o")


def training(**changes):
    return JSON(changed(SMALL, last_kimg=1, **changes))


# words on the command line: what the message says
WORDS = {
    "nothing": ([], ["VERB", "required"]),
    "unknown verb": (["trian"], ["'trian'", "'train'"]),
    "underscore": (["train_classifier"], ["'train_classifier'", "'train-classifier'"]),
    "unknown option": (["status", "--watch"], ["--watch"]),
    "threads text": (["--threads", "two", "status"], ["--threads", "'two'", "from 1 to 1024"]),
    "threads negative": (["--threads", "-2", "status"], ["--threads", "-2"]),
    "threads none": (["--threads", "0", "status"], ["--threads", "'0'", "from 1 to 1024"]),
    "no model given": (["sample", "{}", *OUT], ["--model", "required"]),
    "no settings": (["sample", "--model", M, *OUT], ["settings", "required"]),
    "settings: no file": (["sample", "none.json", "--model", M, *OUT], ["none.json"]),
    "settings: list": (["sample", "[1]", "--model", M, *OUT], ["[1]", "key"]),
    "settings: comma": (["sample", '{"a": 1,}', "--model", M, *OUT], ['{"a": 1,}', "JSON"]),
    "settings: quotes": (["sample", "{'a': 1}", "--model", M, *OUT], ["{'a'", "JSON"]),
    "settings: a list's file": (["sample", "list.json", "--model", M, *OUT], ["list.json"]),
    "settings: empty": (["sample", "{}", "--model", M, *OUT], ["kind: missing", "4 more"]),
    "settings: deep": (
        ["sample", '{"a":' * 5000 + "1" + "}" * 5000, "--model", M, *OUT],
        ["settings: no JSON (found too many levels"],
    ),
    "settings: levels": (
        ["sample", '{"a":' * 200 + "1" + "}" * 200, "--model", M, *OUT],
        ["found 200 levels; allowed: at most 100"],
    ),
    "settings: digits": (
        ["sample", '{"seed": 1' + "0" * 10**6 + "}", "--model", M, *OUT],
        ["a whole number of more than 300 digits"],
    ),
    "settings: metrics": (["sample", METRICS, "--model", M, *OUT], ["'settings'", "images"]),
    "prepare: key": (["prepare", '{"source": "digits"}', "--out", "d"], ["held_out: missing"]),
    "prepare: source": (
        ["prepare", JSON(SPLIT | {"source": "svhn"}), "--out", "d"],
        ["source: found 'svhn'", "digits"],
    ),
    "prepare: text": (["prepare", JSON(SPLIT | {"held_out": "x"}), "--out", "d"], ["held_out"]),
    "prepare: too many": (
        ["prepare", JSON(SPLIT | {"held_out": 9999}), "--out", "d"],
        ["9999", "<"],
    ),
    "train: no data": (["train", training(), "--data", "no.npz", *OUT], ["no.npz", "prepare"]),
    "train: folder": (["train", training(), "--data", "empty", *OUT], ["empty", "a folder"]),
    "train: text": (["train", training(), "--data", "text.txt", *OUT], ["text.txt", "prepare"]),
    "train: samples": (["train", training(), "--data", S, *OUT], ["samples.npz", "'train'"]),
    "train: torn data": (["train", training(), "--data", "torn.npz", *OUT], ["torn.npz"]),
    "train: init": (["train", training(), "--data", D, "--init", "x", *OUT], ["x", "--init"]),
    "train: torn init": (
        ["train", training(), "--data", D, "--init", "torn.safetensors", *OUT],
        ["torn.safetensors", "readable"],
    ),
    "train: classifier as init": (
        ["train", training(), "--data", D, "--init", C, *OUT],
        [C, "a model.safetensors"],
    ),
    "train: model as state": (
        ["train", training(), "--data", D, "--resume", M, *OUT],
        [M, "a state.safetensors"],
    ),
    "train: another network": (
        ["train", training(network__channels=16), "--data", D, "--init", M, *OUT],
        ["model.safetensors: the start's network is", "allowed: {"],
    ),
    "train: process": (
        ["train", training(process="vee"), "--data", D, *OUT],
        ["process: found 'vee'", "'ve', 'flow'", "mean 've'?"],
    ),
    "train: weight": (
        ["train", training(recipe__weight="snr"), "--data", D, *OUT],
        ["recipe.weight: found 'snr'", "gap"],
    ),
    "train: no key": (
        ["train", JSON({k: v for k, v in SMALL.items() if k != "recipe"}), "--data", D, *OUT],
        ["recipe: missing"],
    ),
    "train: out is a file": (
        ["train", training(), "--data", D, "--out", "text.txt"],
        ["text.txt"],
    ),
    "train: halves": (
        ["train", training(network__multipliers=[1, 1, 1, 1, 1]), "--data", D, *OUT],
        ["8 x 8", "halve"],
    ),
    "sample: no model": (
        ["sample", JSON(ONE_STEP), "--model", "none.safetensors", *OUT],
        ["none.safetensors", "does not exist"],
    ),
    "sample: the run's folder": (
        ["sample", JSON(ONE_STEP), "--model", MODEL, *OUT],
        [MODEL, "a folder"],
    ),
    "sample: kind": (
        ["sample", JSON(ONE_STEP | {"kind": "ddim"}), "--model", M, *OUT],
        ["kind: found 'ddim'", "heun"],
    ),
    "sample: option": (
        ["sample", JSON(ONE_STEP | {"options": {"step": 2}}), "--model", M, *OUT],
        ["step"],
    ),
    "sample: training's settings": (["sample", RUN, "--model", M, *OUT], ["kind: missing"]),
    "sample: none": (
        ["sample", JSON(ONE_STEP | {"images": 0}), "--model", M, *OUT],
        ["images", "0"],
    ),
    "evaluate: no samples": (
        ["evaluate", MEASURE, "--samples", "s.npz", "--data", D, "--classifier", C, *OUT],
        ["s.npz", "samples.npz that `sample` writes"],
    ),
    "evaluate: data as samples": (
        ["evaluate", MEASURE, "--samples", D, "--data", D, "--classifier", C, *OUT],
        [D, "arr_0"],
    ),
    "evaluate: no classifier": (
        ["evaluate", MEASURE, "--samples", S, "--data", D, *OUT],
        ["extractor is 'classifier'", "--classifier"],
    ),
    "evaluate: model as classifier": (
        ["evaluate", MEASURE, "--samples", S, "--data", D, "--classifier", M, *OUT],
        [M, "a classifier.safetensors"],
    ),
    "evaluate: extractor": (
        [
            "evaluate",
            JSON({"features": SPACE | {"extractor": "vgg"}, "cell": CELL}),
            "--samples",
            S,
            "--data",
            D,
            *OUT,
        ],
        ["features.extractor: found 'vgg'", "inception"],
    ),
    "import: format": (["import-model", "tensorflow", "m.pkl", *OUT], ["'tensorflow'", "'edm'"]),
    "import: no file": (["import-model", "edm", "m.pkl", *OUT], ["m.pkl"]),
    "import: text": (
        ["import-model", "edm", "text.txt", *OUT],
        ["text.txt", "found text", "a pickle of EDM"],
    ),
    "tabulate: kind": (
        ["tabulate", "pie", "--metrics", METRICS, "--out", "t"],
        ["'pie'", "'split'"],
    ),
    "tabulate: folder": (
        ["tabulate", "split", "--metrics", MODEL, "--out", "t"],
        [MODEL, "folder"],
    ),
    "tabulate: text": (["tabulate", "split", "--metrics", "text.txt", "--out", "t"], ["text.txt"]),
    "tabulate: no cell": (
        ["tabulate", "split", "--metrics", "no_cell.json", "--out", "t"],
        ["no_cell.json", "pretrain"],
    ),
    "tabulate: solvers": (
        ["tabulate", "solvers", "--metrics", METRICS, "--out", "t"],
        ["solvers", "missing", "kind of each sampler"],
    ),
    "tabulate: no such sampler": (
        [
            "tabulate",
            "solvers",
            "--metrics",
            METRICS,
            "--solvers",
            '{"ddim": "euler"}',
            "--out",
            "t",
        ],
        ["no key 'one_step' among ddim"],
    ),
    "tabulate: floor": (
        ["tabulate", "split", "--metrics", METRICS, "--floor", METRICS, "--out", "t"],
        [METRICS, "allowed: a floor"],
    ),
    "draw: figure": (["draw", "pie", "{}", "--out", "f"], ["'pie'", "methods"]),
    "draw: option": (
        ["draw", "maps", MAPS, "--out", "f"],
        ["colour: unknown key", "allowed: width_in, schedules, plugins"],
    ),
    "status: nowhere": (["status", "nowhere"], ["nowhere", "a study"]),
    "status: no runs": (["status", "empty"], ["empty", "no training runs", "results/digits"]),
    "status: model": (["status", M], ["model.safetensors", "not YAML"]),
    "status: broken record": (["status", "twice"], ["twice/broken/run.json", "not JSON"]),
    "status: both": (["status", "config.yaml", "empty"], ["found empty among 2", "one folder"]),
    "status: live": (["status", "results", "--live"], ["--live", "not a terminal"]),
    "show: nowhere": (["show", "nowhere"], ["nowhere", "no such folder"]),
    "show: no runs": (["show", "empty"], ["empty", "no runs", "results/digits"]),
    "show: file": (["show", METRICS], ["metrics.json", "no such folder"]),
    "show: sort": (["show", "results", "--sort", "fid"], ["fid is not a column", "fd"]),
    "show: capitals": (["show", "results", "--sort", "FD"], ["FD is not", "did you mean 'fd'?"]),
    "show: no column": (["show", "results", "--sort", ""], ["'' is not a column"]),
    "show: two columns": (["show", "results", "--sort", "kind"], ["kind is one of", "prior.kind"]),
    "show: filter": (["show", "results", "--filter", "ve"], ["--filter", "'ve'", "column=value"]),
    "show: no folder": (["show", ""], ["show: found no text; allowed: a folder with runs"]),
    "verify: no folder": (["verify", ""], ["verify: found no text; allowed: a folder with runs"]),
    "tabulate: no name": (
        ["tabulate", "split", "--metrics", METRICS, "--out", "o/"],
        ["--out: found 'o/'; allowed: a path with a name"],
    ),
    "show: none": (
        ["show", "results", "--filter", "pretrain=flow"],
        ["pretrain=flow", "allowed: ve"],
    ),
    "show: format": (["show", "results", "--format", "xls"], ["'xls'", "'csv'"]),
    "diff: one": (["diff", MODEL], ["RUN_B", "required"]),
    "diff: nowhere": (["diff", MODEL, "nowhere"], ["nowhere/run.json", "cannot be read"]),
    "diff: no run": (["diff", MODEL, "empty"], ["empty/run.json", "cannot be read"]),
    "diff: broken": (["diff", MODEL, "twice/broken"], ["twice/broken/run.json", "not JSON"]),
    "verify: nowhere": (["verify", "nowhere"], ["nowhere", "no such folder"]),
    "verify: empty": (["verify", "empty"], ["empty", "no run.json", "results/digits"]),
    "verify: file": (["verify", RUN], ["run.json", "no such folder"]),
    "verify: broken": (["verify", "twice"], ["twice", "do not match", "Snakemake"]),
}


def said(words, capsys):
    """What a verb that must fail says on stderr, without argparse's usage."""
    try:
        code = main(words)
    except SystemExit as left:
        code = left.code
    out = capsys.readouterr()
    assert code not in (0, None)
    assert "Traceback" not in out.err + out.out
    usage = out.err.startswith("usage: ")
    return (out.err.rpartition("\nect")[2] if usage else out.err).strip()


@pytest.mark.parametrize("words, wanted", WORDS.values(), ids=WORDS)
def test_mistake_on_the_command_line(made, monkeypatch, capsys, words, wanted):
    monkeypatch.chdir(made)
    shutil.rmtree(made / "o", ignore_errors=True)  # another verb's folder
    message = said(words, capsys)
    assert len(message.splitlines()) == 1 and len(message) < 1500, message
    assert all(part in message for part in wanted), message
    assert not (made / "o" / "model.safetensors").exists()


@pytest.mark.parametrize("name, wanted", STUDIES.items(), ids=STUDIES)
def test_mistake_in_a_study(made, monkeypatch, capsys, name, wanted):
    monkeypatch.chdir(made)
    message = said(["status", name], capsys)
    assert message.startswith("ect status: ") and all(part in message for part in wanted), message


def test_every_wrong_study_is_tried():
    assert {name for name in WRONG_FILES if name.endswith(".yaml")} <= set(STUDIES)
