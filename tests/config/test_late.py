"""What a plan tells before any job runs, which a job alone told, late or with a traceback."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ect
from ect import plugins
from ect.cli.main import main
from ect.config import gaps, places
from ect.config.config import Config, ConfigError
from ect.config.training import Prior
from ect.evaluation.classifier import at_chance
from ect.models.draw import most_images
from ect.runtime.text import waits
from tests.helpers.configs import changed

ROOT = Path(ect.__file__).parents[1]


def refused(path, value, wanted):
    with pytest.raises(ConfigError) as error:
        Config.read(changed(path, value))
    assert re.search(wanted, str(error.value)) and "\n" not in str(error.value), error.value


@pytest.mark.parametrize("mean", [-9.9, -6.3, 4.4, 8.0])
def test_a_prior_most_of_whose_levels_no_sampler_reaches_is_refused(mean):
    wanted = (
        f"mean is {mean:g}, so that most levels are {'above 80' if mean > 0 else 'below 0.002'}"
    )
    refused("pretrain/ve/prior", {"mean": mean, "std": 1.0}, wanted)
    beyond = gaps.levels({"kind": "lognormal", "options": {"mean": mean, "std": 1.0}})
    assert np.mean([not 0.002 <= s <= 80 for s in beyond]) > 0.5
    Prior(mean=4.3 if mean > 0 else -6.2, std=1.0)


@pytest.mark.parametrize("clock", ["noise", "time"])
def test_a_map_that_leaves_r_at_zero_is_refused(clock):
    options = {"map": "sigmoid", "q": 2.0, "stages": 1, "k": 8.0, "b": 0.0, "clock": clock}
    refused("schedules/sigmoid", options, "found r = 0 at every level to the end of a run of 'ect'")
    Config.read(changed("schedules/sigmoid", options | {"stages": 5}))


@pytest.mark.parametrize("start", [b"hello\n", b"", b"<html>", b"version https://git-lfs\n"])
@pytest.mark.parametrize("format", ["edm", "ect", "state_dict"])
def test_a_start_that_is_no_file_of_weights_is_refused(tmp_path, start, format):
    (tmp_path / "w").write_bytes(start)
    block = {"format": format, "file": str(tmp_path / "w")}
    wanted = "init.a.*: found an empty file" if not start else "init.a.*: found a text file"
    refused("init", {"a": block}, wanted)


def test_a_missing_folder_is_named_as_it_was_written():
    block = {"source": "images", "path": "file:///x", "held_out": 3}
    refused("dataset", block, "found 'file:///x'; .* not an address")


@pytest.mark.parametrize(
    "text, found",
    [("- a", "a list"), ("3", "a number"), ("0.5", "a number"), ("yes", "true or false"),
     ("a", "a text"), ("", "nothing"), ("2026-01-01", "a single value")],
)  # fmt: skip
def test_a_config_that_is_no_mapping_is_told_in_words(tmp_path, text, found):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"found {found}; allowed"):
        places.read(tmp_path / "c.yaml")


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["plan", str(tmp_path / "pipe")]) == 1
    assert "found a device, pipe or socket" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "pipe"), "--data", "d", "--out", "o"])
    assert "found a device, pipe or socket" in capsys.readouterr().err
    read, write = os.pipe()  # as a shell's <(...), which is read to its end
    os.write(write, b"study: mine\n")
    os.close(write)
    assert not waits(f"/dev/fd/{read}")
    assert places.read(f"/dev/fd/{read}")[0] == {"study": "mine"}
    os.close(read)


def test_held_out_images_are_counted_with_file_and_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text((ROOT / "config.yaml").read_text())
    for folder in "ab":
        Path(f"photos/{folder}").mkdir(parents=True)
        for name in "xyz":
            Image.new("L", (8, 8)).save(f"photos/{folder}/{name}.png")
    keys = "resolution: 8, channels: 1, held_out: 30, classes: folders"
    block = f"{{source: images, path: photos, {keys}}}"
    Path("mine.yaml").write_text(f"study: mine\n\ndataset: {block}\n")
    assert main(["plan", "mine.yaml"]) == 1
    line = capsys.readouterr().err
    assert "mine.yaml: line 3: dataset.held_out: found 30 of 6 images" in line


MARKED = (
    "from ect.plugins import schedule\n\n\n@schedule\ndef mine(t, progress):\n    return t / 2\n"
)
LOST = {
    "del mine": "line 8: mine is deleted",
    "mine = 3": "line 8: mine is given another value",
    "from math import pi as mine": "line 8: mine is given another value",
    "for mine in (1, 2):\n    pass": "line 8: mine is given another value",
    "def mine():\n    return 1": "line 8: mine is given another value",
    "if True:\n    del mine": "line 8: mine is given another value",
}


@pytest.mark.parametrize("text", LOST)
def test_a_part_that_is_gone_at_the_end_of_its_file_is_refused(tmp_path, text):
    path = tmp_path / "part.py"
    path.write_text(f"{MARKED}\n{text}\n")
    with pytest.raises(ValueError, match=LOST[text]):
        plugins.read([str(path)])
    path.write_text(f"import math as mine\n{MARKED}\nother = mine\n")
    assert "mine" in plugins.read([str(path)])["schedule"]


CHANGES = {
    "torch.set_default_dtype(torch.float64)": "set_default_dtype, which is now torch.float64",
    "torch.set_default_device('meta')": "calls torch.set_default_device, which is now meta",
    "torch.set_grad_enabled(False)": "calls torch.set_grad_enabled, which is now False",
    "torch.set_num_threads(7)": "calls torch.set_num_threads, which is now 7",
    "torch.use_deterministic_algorithms(True)": "calls torch.use_deterministic_algorithms",
}  # fmt: skip


def now():
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("where", ["file", "part"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_plugin_that_changes_torchs_defaults_is_named_and_they_are_kept(tmp_path, change, where):
    text = MARKED.replace("from ect", "import torch\nfrom ect")
    indented = text.replace("    return", f"    {change}\n    return")
    text = f"{text}\n{change}\n" if where == "file" else indented
    (tmp_path / "part.py").write_text(text)
    path, before = str(tmp_path / "part.py"), now()
    digests = {path: hashlib.sha256(text.encode()).hexdigest()}
    with pytest.raises(ValueError, match=CHANGES[change]) as error:
        plugins.load(digests)["schedule"]["mine"](torch.ones(3), 0.5)
    assert str(error.value).startswith(f"plugins: {path}: ") and now() == before


def test_rules_without_their_package_ask_for_the_installed_one_of_their_version():
    rules = (ROOT / "workflow/rules/common.smk").read_text()
    assert f'\nVERSION = "{ect.__version__}"' in rules and "ect.__version__ != VERSION" in rules
    assert f'\nversion = "{ect.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def test_more_images_than_memory_holds_are_refused():
    most = most_images((3, 4096, 4096))
    assert 1 <= most < 10**6 and most_images((1, 1, 1)) == 10**7
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2 * most * 3 * 4096**2 <= memory < 2 * (most + 1) * 3 * 4096**2


@pytest.mark.parametrize(
    "accuracy, chance", [(0.1, True), (0.12, True), (0.0, True), (0.3, False), (0.98, False)]
)
def test_an_accuracy_at_chance_is_known(accuracy, chance):
    assert at_chance(accuracy, np.arange(300) % 10) == chance


@pytest.mark.parametrize(
    "word, meant", [("trian", "train"), ("plann", "plan"), ("tabulate_steps", "tabulate-steps")]
)
def test_a_mistyped_verb_is_told_the_nearest(word, meant, capsys):
    with pytest.raises(SystemExit) as end:
        main([word])
    assert end.value.code == 2 and f"did you mean '{meant}'?" in capsys.readouterr().err


def test_a_mistyped_option_is_told_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["train", "{}", "--data", "d", "--out", "o", "--resum=x", "--hodl"])
    assert "did you mean '--hold'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["plan", "--threads", "1"],
            "arguments: --threads; allowed: before the verb, as in `ect --th",
        ),
        (
            ["plan", "--attempt=1"],
            "--attempt=1; allowed: before the verb, as in `ect --attempt",
        ),
        (["plan", "--config", "a=b"], "arguments: --config; allowed: --rate, --json, --help"),
        (["diff", "a", "b", "c"], "unrecognized arguments: c; allowed: --help"),
    ],
)
def test_an_option_of_no_verb_or_of_all_is_told_with_what_is_allowed(words, said, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert said in capsys.readouterr().err


def test_a_reader_that_ends_early_ends_a_verb_quietly(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ect", "completion", "bash"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, env=environment, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_verb_that_is_interrupted_says_so_in_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ect.cli.made.require", interrupted)
    assert main(["status"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "ect: stopped by SIGINT\n"
