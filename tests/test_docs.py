"""What README and docs/ tell a reader to type runs: commands, snippets of config and Python.

A tiny study lies where the pages name results. Commands are typed in their order: `make` and
`snakemake` as dry runs, verbs for real.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ect
from ect.cli.main import main
from ect.config import load
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.evaluation import sample
from ect.runtime import checkpoint, record
from ect.study import settings as settings_of
from ect.training import train
from tests.helpers import warm
from tests.helpers.configs import PICKLE
from tests.helpers.measured import ONE_STEP, measure
from tests.helpers.runs import PRETRAIN, TUNE, changed
from tests.helpers.workflow import OUTER, copy_workflow, smoke, stand_in_for_conda

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text() for page in PAGES}
NOT_RUN = {
    "make cpu TORCH_INDEX=ADDRESS": "needs an index with builds for CPUs",
    "apt install git make python3-venv": "needs root and a network",
    "python -m ect lease --gpus 1 -- python yours.py": "becomes another program",
    "python -m pytest tests/workflow/test_slurm.py": "is run with the other tests",
    "python -m pytest tests/training/test_train.py --device cuda": "needs a GPU",
    "python -m ect status --live": "needs a terminal",
    "python -m ect push OWNER/NAME my-pipeline": "needs a token and a network",
    "python bench/saving.py": "measures for minutes",
    "python bench/kills.py --kills 50": "measures for an hour",
    "snakemake -n --profile workflow/profiles/kubernetes": "its plugins are not in the lock",
}


def blocks(kind):
    """(page, text) of every fenced block of a kind, in the order of the pages."""
    fence = rf"^```{kind}\n(.*?)^```"
    return [
        (n, b) for n, t in TEXTS.items() for b in re.findall(fence, t, re.MULTILINE | re.DOTALL)
    ]


def typed(text):
    """The commands of a block of shell, as lists of words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


COMMANDS = [words for _, block in blocks("sh") for words in typed(block)]
COMMANDS += [
    shlex.split(text)
    for page in TEXTS.values()
    for text in re.findall(r"`((?:apt|make|snakemake|python) [^`\n]+)`", page)
    if text not in NOT_RUN
]
COMMANDS = list(dict.fromkeys(map(tuple, COMMANDS)))
OVERLAYS = blocks("yaml")
each_overlay = pytest.mark.parametrize("page, text", OVERLAYS, ids=[name for name, _ in OVERLAYS])


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits_file):
    """A copy of the workflow, with tiny models where the pages name some, and a reader's files."""
    folder = tmp_path_factory.mktemp("docs")
    copy_workflow(folder, "Makefile", "requirements.lock")
    before = Path.cwd()
    os.chdir(folder)  # so that records name paths as Snakemake gives them
    try:
        tiny_study(Path("results/digits"), digits_file, [Tuned(K30, "sigmoid", "ect", 30, 0)])
        slope = [Tuned(K1, "sigmoid", recipe, 1, 0) for recipe in ("ect", "ect_slope")]
        tiny_study(Path("results/smoke"), digits_file, slope)
        a_readers_files()
    finally:
        os.chdir(before)
    return folder


K30, K1 = Milestone("ve", 0, 30), Milestone("ve", 0, 1)


def tiny_study(root, digits_file, models):
    """A start, its tuning runs, and their images and distances, of 1,000 training images each."""
    data, start = root / "data" / "dataset.safetensors", root / models[0].start.folder
    data.parent.mkdir(parents=True)
    shutil.copy(digits_file, data)
    checkpoint.write_json(data.with_name("run.json"), {"outputs": {data.name: record.digest(data)}})
    train.run(changed(PRETRAIN, recipe__batch=250), data, start)
    for model in models:
        out = root / model.folder
        settings = changed(TUNE, recipe__batch=250, snapshots=0)
        train.run(settings, data, out, init=start / "model.safetensors")
        sample.run(ONE_STEP, out / "model.safetensors", out / "one_step")
        measure(out / "one_step", model)


def a_readers_files():
    """my.yaml, the snippets that name themselves, photos in folders, drawn images."""
    Path("my.yaml").write_text("study: mine\n")
    Path("my_schedule.py").write_text(own_schedule())
    Path("my_objective.py").write_text(own_objective())
    Path("mine.yaml").write_text(named("# mine.yaml"))
    Path("tuned.yaml").write_text(named("# tuned.yaml"))
    Path("models").mkdir()
    shutil.copy(PICKLE, "models/edm-cifar10-32x32-uncond-vp.pkl")
    generator = np.random.default_rng(0)
    np.savez("samples.npz", generator.integers(0, 256, (2, 8, 8, 1), np.uint8))
    for label in ("cat", "dog"):
        Path("photos", label).mkdir(parents=True)
    for index in range(400):  # more than images.yaml holds out
        name = f"photos/{('cat', 'dog')[index % 2]}/{index}.png"
        Image.fromarray(generator.integers(0, 256, (20, 20, 3), np.uint8)).save(name)


def own_schedule():
    return next(text for _, text in blocks("python") if "@schedule" in text)


def own_objective():
    return next(text for _, text in blocks("python") if "@objective" in text)


LAID = {"# mine.yaml": "images", "# tuned.yaml": "start"}  # over a study that is not the default


def named(first):
    """The snippet of config whose first line is this."""
    return next(text for _, text in blocks("yaml") if text.startswith(first))


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def run(*words):
    """A command in the working directory, with this Python's programs; its output if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path}
    if words[:3] == (sys.executable, "-m", "snakemake"):
        done = warm.run(*words[2:], env=env)
    else:
        done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"[-3000:]
    return done.stdout + done.stderr


def test_the_commands_are_found():
    programs = {words[0] for words in COMMANDS}
    assert programs == {"make", "snakemake", "python"} and len(COMMANDS) > 12
    assert all(any(f"`{text}`" in page for page in TEXTS.values()) for text in NOT_RUN)


def test_make_knows_its_targets(here):
    for words in COMMANDS:
        if words[0] == "make":
            assert run("make", "-n", *words[1:]).count("\n") > 0


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if w[0] == "snakemake"], ids=lambda words: " ".join(words[1:])
)
def test_snakemake_plans_what_is_typed(here, words, tmp_path, monkeypatch):
    programs = stand_in_for_conda(tmp_path)  # for --use-conda
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    cores = [] if {"--cores", "--profile"} & set(words) else ["--cores", "1"]
    assert "Job stats" in run(sys.executable, "-m", *words, *cores, "-n")


def test_verbs_run_in_the_order_of_the_pages(here, capsys):
    for words in COMMANDS:
        if words[:3] == ("python", "-m", "ect") and len(words) > 4:
            assert main(list(words[3:])) == 0, (words, capsys.readouterr().err)
        elif words[:3] == ("python", "-m", "ect"):
            main_or_help(words[3:])
        elif words[0] == "python":
            run(sys.executable, *words[1:])
    again, first = (Path(p) / "model.safetensors" for p in ("again", f"results/digits/{TUNED_30}"))
    assert again.read_bytes() == first.read_bytes()  # as README says
    assert Image.open("samples.png").size[0] > 0


TUNED_30 = Tuned(K30, "sigmoid", "ect", 30, 0).folder


def main_or_help(words):
    """A verb alone: for real where it needs nothing, else its help."""
    if words == ("status",):
        assert main(list(words)) == 0
        return
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0


@each_overlay
def test_snippets_of_config_are_laid_over_the_default_study(here, page, text):
    study = LAID.get(text.partition("\n")[0])
    over = [f"workflow/studies/{study}.yaml"] if study else []
    for block in (yaml.safe_load(text).get("init") or {}).values():
        if block["format"] != "diffusers":
            Path(block["file"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PICKLE, block["file"])
    Path("snippet.yaml").write_text(text)
    Config.read(load.read("config.yaml", *over, "snippet.yaml"))


def test_the_objective_of_the_pages_trains(here):
    text = next(text for _, text in blocks("yaml") if "my_objective.py" in text)
    Path("snippet.yaml").write_text(text)
    study = Config.read(load.read("config.yaml", "snippet.yaml"))
    settings = settings_of.train(study, Tuned(K30, "solution", "solution", 1, 0))
    shown = {"network": PRETRAIN["network"], "recipe": settings["recipe"] | {"batch": 250}}
    root = Path("results/digits")
    words = ["train", json.dumps(settings | shown), "--out", "mine", "--init"]
    words += [str(root / K30.folder / "model.safetensors")]
    assert main([*words, "--data", str(root / "data" / "dataset.safetensors")]) == 0
    lines = [json.loads(line) for line in Path("mine/metrics.jsonl").read_text().splitlines()]
    assert lines and all(0 < line["loss"] < 1e3 for line in lines)


def test_a_snippet_of_config_with_a_mistake_would_be_seen(here):
    Path("snippet.yaml").write_text("schedules: {root4: {map: root, power: 4}}\n")
    with pytest.raises(ValueError, match=r"schedules\.root4"):
        Config.read(load.read("config.yaml", "snippet.yaml"))


def test_python_snippets_run(here):
    programs = [text for _, text in blocks("python") if "import ect\n" in text]
    programs.append(re.search(r"In a program:\n\n(.*)", ect.__doc__, re.DOTALL).group(1))
    assert len(programs) == 4
    for text in programs:
        names = {}
        exec("\n".join(line.removeprefix("    ") for line in text.splitlines()), names)
        if "program" in names:  # of torch.export
            x_t, t = torch.randn(7, 1, 8, 8), torch.rand(7)
            wanted = names["model"].module()(x_t, t)
            torch.testing.assert_close(names["program"].module()(x_t, t), wanted)
            continue
        assert names["images"].shape == (16, 8, 8, 1) and names["images"].dtype == np.uint8


def test_the_pipeline_of_the_pages_is_opened(here, tmp_path, monkeypatch):
    pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    model = f"results/digits/{TUNED_30}/model.safetensors"
    if not Path("my-pipeline").exists():
        assert main(["export", model, "--out", "my-pipeline", "--diffusers"]) == 0
    (text,) = [text for _, text in blocks("python") if "DiffusionPipeline" in text]
    names = {}
    exec(text, names)
    wanted = ect.load(model).sample(16, steps=2)
    assert all(
        np.array_equal(found, image[..., 0]) for found, image in zip(names["images"], wanted)
    )


@pytest.mark.pipeline
def test_the_module_of_the_pages_is_the_one_that_is_tested(tmp_path, monkeypatch):
    (text,) = [text for _, text in blocks("python") if text.startswith("module ect:")]
    assert "".join(text.split()) in "".join(OUTER.split()).replace("{root}", "path/to")
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").write_text(text.replace("path/to", str(ROOT)))
    Path("config.yaml").write_text(yaml.safe_dump({"ect": smoke()}))
    words = ("-m", "snakemake", "ect_all", "-n", "--cores", "1", "--configfile", "config.yaml")
    assert "ect_pretrain" in run(sys.executable, *words)
