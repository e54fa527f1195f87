"""Every number on the command line and in the environment is finite and bounded."""

import argparse
import os
import re

import pytest

from ect.cli import arguments
from ect.cli import main as main_module
from ect.cli.main import THREADS, limit_threads, main, parser, require_environment
from ect.models.export import sample
from ect.runtime import distributed, lease

TRAIN = ["train", "{}", "--data", "d", "--out", "o"]
PLACES = {
    "--threads": lambda text: ["--threads", text, *TRAIN],
    "--attempt": lambda text: ["--attempt", text, *TRAIN],
    "--gpus": lambda text: [*TRAIN, "--gpus", text],
    "--nodes": lambda text: [*TRAIN, "--nodes", text],
    "lease": lambda text: ["lease", "--gpus", text, "--", "true"],
    "--save-seconds": lambda text: [*TRAIN, "--save-seconds", text],
    "--max-minutes": lambda text: [*TRAIN, "--max-minutes", text],
    "--rate": lambda text: ["plan", "--rate", text],
}
NO_NUMBERS = [
    "nan", "inf", "-inf", "1e999", "-1", "-1e-300", str(10**30), "9" * 5000, "two", "", " ", "1e30",
    "0x10", "1,5", "\x1b[2J", "١٢" * 40,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_an_option_that_is_no_number_of_its_kind_is_one_line(place, text, capsys):
    require_refused(parser(), PLACES[place](text), capsys)


def require_refused(parser, words, capsys):
    with pytest.raises(SystemExit) as left:
        parser.parse_args(words)
    error = capsys.readouterr().err
    line = error[error.rindex(f"\n{parser.prog}") + 1 :].strip()
    assert left.value.code == 2 and len(line) < 300 and line.isprintable()
    assert "allowed: a " in line or re.search("expected (one|at least one) argument", line)


@pytest.mark.parametrize("place", PLACES)
def test_numbers_that_jobs_are_given_are_allowed(place):
    for text in ("1", "2", "100"):
        parser().parse_args(PLACES[place](text))
    if place in ("--save-seconds", "--max-minutes"):
        for text in ("0", "0.05", "55", "1e3", "10079.5"):
            parser().parse_args(PLACES[place](text))


def test_every_option_with_a_number_is_bounded():
    """No option of a verb or of the exported script takes int or float as they are."""
    verbs = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    actions = [*parser()._actions, *(a for verb in verbs.values() for a in verb._actions)]
    actions += sample.parser()._actions
    assert not [action.option_strings for action in actions if action.type in (int, float)]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400"])
def test_settings_hold_finite_numbers(text, capsys, tmp_path):
    for given in (f'{{"a": {{"b": [{text}]}}}}', str(tmp_path / "run.json")):
        (tmp_path / "run.json").write_text(f'{{"settings": {{"a": {text}}}}}')
        with pytest.raises(argparse.ArgumentTypeError, match=r"allowed: finite numbers"):
            arguments.settings_of(given)
    assert arguments.settings_of('{"a": 1e-4, "b": 10}') == {"a": 1e-4, "b": 10}


@pytest.mark.parametrize("text", ["two", "-1", "nan", str(10**30), "9" * 5000, "1.5", "\x1b[2J"])
def test_numbers_of_the_environment_are_told_by_name(text, monkeypatch, capsys):
    monkeypatch.setenv("ECT_FAKE_DEVICES", text)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main(["lease", "--gpus", "1", "--", "true"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ect lease: ECT_FAKE_DEVICES: found '") and len(line) < 200
    monkeypatch.setenv("SLURM_JOB_ID", text)
    with pytest.raises(ValueError, match=r"^SLURM_JOB_ID: found "):
        lease.torchrun(4, 2)
    monkeypatch.setenv("ECT_STARTER", text)
    with pytest.raises(ValueError, match=r"^ECT_STARTER: found "):
        distributed.parents()


@pytest.mark.parametrize("name", [*THREADS, "SOURCE_DATE_EPOCH"])
def test_numbers_that_libraries_read_are_told_by_name(name, monkeypatch, capsys):
    for text in ("two", "-1", "1.5", "9" * 5000, "\x1b[2J", "2,x", "9" * 15):
        monkeypatch.setenv(name, text)
        assert main(["verify", "."]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ect verify: {name}: found '") and len(line) < 200
        assert "allowed: a whole number from " in line
    for text in ("4", "", *(["4,2"] if name in THREADS else ["0"])):
        monkeypatch.setenv(name, text)
        require_environment()


def test_threads_of_the_command_line_come_first(monkeypatch):
    for name in THREADS:
        monkeypatch.setenv(name, "two")
    limit_threads(3)
    assert [os.environ[name] for name in THREADS] == ["3"] * 3


@pytest.mark.parametrize("option", ["--n", "--steps", "--times", "--labels", "--batch", "--seed"])
def test_the_exported_script_takes_no_other_numbers(option, capsys):
    for text in [*NO_NUMBERS, *(() if option in ("--labels", "--seed") else ("0",))]:
        require_refused(sample.parser(), [option, text], capsys)
    assert sample.parser().parse_args([option, "16"])


OPENMP = {
    "OMP_PROC_BIND": (["true", "SPREAD", "close,spread", ""], ["maybe", "close,", "1"]),
    "OMP_PLACES": (
        ["cores", "threads(4)", "{0:4}:2", "{0,1},{2,3}", "{0:2:2}:2:1, {5}", "{0:4}:4:-1"],
        ["xx", "cores(a)", "{0:4", "{0:4}:", "{0:1},{1:1", "!0", "{0:0}", "{0}{1}", "{}"],
    ),
    "OMP_SCHEDULE": (["dynamic,4", "nonmonotonic: static"], ["foo", "static,-1", "static,x"]),
    "GOMP_CPU_AFFINITY": (["0", "0-3", "0 2,4-9:2"], ["zz", "0-", "-1", "0-4:0"]),
    "OMP_WAIT_POLICY": (["active"], ["w"]),
    "OMP_DYNAMIC": (["false"], ["perhaps", "1"]),
    "OMP_NESTED": (["TRUE"], ["qq"]),
    "OMP_CANCELLATION": (["true"], ["x"]),
    "OMP_STACKSIZE": (["4M", "100 k", "9"], ["1zz", "M", "-4"]),
    "GOMP_STACKSIZE": (["4M"], ["x"]),
    "OMP_MAX_ACTIVE_LEVELS": (["0", "2"], ["x", "-1"]),
    "OMP_THREAD_LIMIT": (["4"], ["0", "x"]),
    "OMP_DISPLAY_ENV": (["verbose"], ["x"]),
    "OMP_TARGET_OFFLOAD": (["default"], ["x"]),
    "GOMP_SPINCOUNT": (["infinite", "30k"], ["x", "-1"]),
    "OMP_DEFAULT_DEVICE": (["0"], ["x", "-1"]),
    "OMP_DISPLAY_AFFINITY": (["true"], ["x"]),
    "OMP_MAX_TASK_PRIORITY": (["7"], ["x"]),
    "GOMP_DEBUG": (["1"], ["x"]),
}
ALLOCATOR = (
    ["expandable_segments:True", "max_split_size_mb:64,roundup_power2_divisions:[256:1,>:4],"],
    ["zz", ",", "max_split_size_mb", "max_split_size_mb:"],
)
TORCH = {
    "PYTORCH_ALLOC_CONF": ALLOCATOR,
    "PYTORCH_CUDA_ALLOC_CONF": ALLOCATOR,
    "ATEN_CPU_CAPABILITY": (["default", "AVX2"], ["zz"]),
    "TORCH_SHOW_CPP_STACKTRACES": (["1"], ["x"]),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": (["0"], ["x"]),
    "TORCH_BLAS_PREFER_CUBLASLT": (["0"], ["x"]),
    "ONEDNN_DEFAULT_FPMATH_MODE": (["STRICT", ""], ["BF16", "any"]),
    "DNNL_DEFAULT_FPMATH_MODE": (["strict"], ["bf16"]),
}
LIBRARIES = OPENMP | TORCH


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_cannot_read_is_told_before_it_is_loaded(monkeypatch, capsys, name):
    good, bad = LIBRARIES[name]
    for value in good:
        monkeypatch.setenv(name, value)
        require_environment()
    for value in bad:
        monkeypatch.setenv(name, value)
        assert main(["verify", "nowhere"]) == 1
        assert f"{name}: found '{value}'; allowed: " in capsys.readouterr().err


def test_every_variable_is_tried():
    assert set(OPENMP) == set(main_module.OPENMP) and set(TORCH) == set(main_module.TORCH)


def test_what_a_library_says_in_several_lines_is_one(monkeypatch, capsys):
    """As torch does of TORCH_LOGS."""

    def library(root):
        raise ValueError("\none: wrong,\nallowed: two")

    monkeypatch.setattr("ect.runs.verify.verify", library)
    assert main(["verify", "nowhere"]) == 1
    assert capsys.readouterr().err == "ect verify: one: wrong, allowed: two\n"
