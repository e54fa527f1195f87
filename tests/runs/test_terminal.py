"""What a run prints: a line a job, the count and the time left, and how it ends."""

import io
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from ect.cli.main import first_only
from ect.runs import terminal, whole
from ect.runs.terminal import Terminal
from ect.runtime import checkpoint
from tests.helpers import warm

HOME = Path(__file__).parents[2]


class Screen(io.StringIO):
    """A stream that is a terminal, or none."""

    def __init__(self, live):
        super().__init__()
        self.live = live

    def isatty(self):
        return self.live


@pytest.fixture
def logger():
    """A logger as Snakemake's: one handler with its name for the terminal."""
    made = logging.Logger("made")
    plain = logging.StreamHandler(Screen(live=False))
    plain.name = terminal.OWN
    made.addHandler(plain)
    return made


SETTINGS = SimpleNamespace(verbose=False, quiet=set(), dryrun=False)


def attached(logger, root="results/digits", live=False):
    logger.handlers[0].stream.live = live
    terminal.attach(logger, root, SETTINGS)
    return logger.handlers[0].stream


def tell(logger, event, message="", level=logging.INFO, **facts):
    logger.log(level, message, extra={"event": event, **facts})


def start(logger, **counts):
    tell(logger, "workflow_started")
    tell(logger, "run_info", stats=counts | {"total": sum(counts.values())})


def job(logger, number, rule, file, seconds, clock):
    tell(logger, "job_info", jobid=number, rule_name=rule, output=[file])
    tell(logger, "shellcmd", "python -m ect ...")
    clock[0] += seconds
    tell(logger, "job_finished", job_id=number)
    tell(logger, "progress", done=number, total=99)


@pytest.fixture
def clock(monkeypatch, tmp_path):
    now = [100.0]
    monkeypatch.chdir(tmp_path)  # where .snakemake is
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.delenv("V", raising=False)
    monkeypatch.delenv(terminal.BARS, raising=False)
    return now


def test_a_job_is_one_line_with_the_count_and_the_time_left(logger, clock):
    """Two of four `tune` took 10 s each: 10 s x 2 are left, and `evaluate`."""
    stream = attached(logger)
    start(logger, tune=4, evaluate=1)
    for number in (1, 2):
        logger.info("Select jobs to execute...")
        job(logger, number, "tune", f"results/digits/tune/{number}/model", 10, clock)
    first, *lines = stream.getvalue().splitlines()
    assert first.startswith("5 jobs; ")
    assert lines == [
        "[1/5, 20 %] tune tune/1/model: 10 s; about 30 s left and, not timed yet, 1 evaluate",
        "[2/5, 40 %] tune tune/2/model: 10 s; about 20 s left and, not timed yet, 1 evaluate",
    ]


def test_the_target_that_names_all_results_is_no_job(logger, clock):
    """The count is that of `ect plan`, and it is full at the end."""
    stream = attached(logger)
    start(logger, tune=1, study=1)
    job(logger, 1, "tune", "a", 1, clock)
    tell(logger, "job_info", jobid=0, rule_name="study", output=[])
    tell(logger, "job_finished", job_id=0)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("1 job; ") and last == "[1/1, 100 %] tune a: 1 s"


def test_jobs_that_were_never_timed_are_named(logger, clock):
    """Ten `sample` of 1 s have ended, and no `evaluate`; the count of what is left names these."""
    stream = attached(logger)
    start(logger, sample=20, evaluate=5, write_page=1)
    for number in range(10):
        job(logger, number, "sample", "b", 1, clock)
    assert stream.getvalue().endswith("about 11 s left and, not timed yet, 5 evaluate\n")
    job(logger, 30, "evaluate", "c", 30, clock)
    assert stream.getvalue().endswith("about 2 min 14 s left\n")  # 10 + 4 x 30 + the mean, 40 / 11


def test_a_run_that_goes_on_knows_what_jobs_took_before(logger, clock):
    """The first run had `tune` of 50 s; the second, of three more, knows it after a `sample`."""
    stream = attached(logger)
    start(logger, tune=4, sample=1)
    job(logger, 1, "tune", "a", 50, clock)
    again = Terminal(logger.handlers[0].plain, "results/digits")
    logger.handlers[:] = [again]
    start(logger, tune=3, sample=1)
    job(logger, 1, "sample", "b", 2, clock)
    assert stream.getvalue().endswith("about 2 min 30 s left\n")


def test_jobs_at_a_time_leave_less_time(logger, clock):
    """Two at once in 10 s: two more take 10 s, not 20."""
    stream = attached(logger)
    start(logger, tune=4)
    for number in (1, 2):
        tell(logger, "job_info", jobid=number, rule_name="tune", output=["a"])
    clock[0] += 10
    for number in (1, 2):
        tell(logger, "job_finished", job_id=number)
    assert stream.getvalue().endswith("about 10 s left\n")


def test_the_whole_run_is_told_to_who_watches_it(logger, clock, monkeypatch):
    """The same count and time as in the line of the last job; the time runs down until the next."""
    stream, root, now = attached(logger), "results/digits", time.time()
    assert whole.read(root) is None
    start(logger, tune=4, evaluate=1)
    assert whole.line(whole.read(root)).startswith("the run: 0 of 5 jobs done; time left: unknown")
    job(logger, 1, "tune", "results/digits/tune/1/model", 10, clock)
    told = whole.read(root)
    assert stream.getvalue().endswith("about 30 s left and, not timed yet, 1 evaluate\n")
    monkeypatch.setattr(whole.time, "time", lambda: told["time"] + 15)
    assert whole.line(told) == (
        "the run: 1 of 5 jobs done; about 15 s left and, not timed yet, 1 evaluate"
    )
    monkeypatch.setattr(whole.time, "time", lambda: now + 1000)
    assert "about 0 s left" in whole.line(told) and whole.read("results/other") is None
    checkpoint.write_json(whole.file_of(root), told | {"pid": 2**22 + 1})  # that was killed
    assert whole.read(root) is None
    checkpoint.write_json(whole.file_of(root), told)
    terminal.finish(logger)
    assert whole.read(root) is None and not whole.file_of(root).exists()


def test_a_job_tells_the_first_warning_of_its_libraries_on_one_line(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", first_only("train"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for text in ("an operator\nhas no kernel", "another"):
            warnings.warn(text, stacklevel=1)
    wanted = "ect train: UserWarning: an operator has no kernel (V=1 shows all)\n"
    assert capsys.readouterr().err == wanted


def test_the_page_is_told_at_the_end(logger, clock, tmp_path):
    stream = attached(logger, tmp_path)
    start(logger, tune=1)
    job(logger, 1, "tune", f"{tmp_path}/model", 61, clock)
    terminal.finish(logger)
    assert stream.getvalue().endswith(f"done in 1 min 01 s; the results: {tmp_path}/\n")
    (tmp_path / "index.html").touch()
    logger.info("Nothing to be done (all requested files are present and up to date).")
    assert stream.getvalue().endswith(f"Nothing to be done; the page: {tmp_path}/index.html\n")


def test_warnings_and_what_is_no_run_are_told(logger, clock):
    stream = attached(logger)
    logger.info("Unlocked working directory.")
    tell(logger, "workflow_started")
    logger.info("Building DAG of jobs...")
    logger.warning("a disk is slow")
    assert stream.getvalue() == "Unlocked working directory.\na disk is slow\n"


CALLED = "RuleException:\nCalledProcessError in file ..., line 82:\nCommand 'set -euo ...' "


@pytest.mark.parametrize(
    "ended, told",
    [
        ("died with <Signals.SIGKILL: 9>.", "killed by SIGKILL"),
        ("returned non-zero exit status 1.", "the lines above say why"),
    ],
)
def test_a_failed_job_is_named_and_the_log_too(logger, clock, ended, told):
    stream = attached(logger)
    start(logger, tune=1)
    tell(logger, "job_info", jobid=1, rule_name="tune", output=["a/model"])
    tell(logger, "error", CALLED + ended, logging.ERROR)
    tell(logger, "job_error", "", logging.ERROR, jobid=1, rule_name="tune")
    logger.info("Complete log(s): here.log")
    tell(logger, "error", "At least one job did not complete successfully.", logging.ERROR)
    assert stream.getvalue().splitlines()[1:] == [
        f"failed: tune a/model; {told}",
        "Complete log(s): here.log",
        "not finished; the same command goes on from what is done",
    ]


def test_of_a_job_of_a_cluster_the_log_is_named(logger, clock):
    stream = attached(logger)
    start(logger, tune=1)
    tell(logger, "job_info", jobid=1, rule_name="tune", output=["a/model"])
    facts = {"jobid": 1, "rule_name": "tune", "log": ["slurm/7.log"]}
    tell(logger, "job_error", "", logging.ERROR, **facts)
    assert stream.getvalue().endswith("failed: tune a/model; its log: slurm/7.log\n")
    tell(logger, "job_info", jobid=1, rule_name="tune", output=["a/model"])
    facts = {"jobid": 1, "rule_name": "tune", "rule_msg": "no such node\n  sbatch --gpus 9\n"}
    tell(logger, "job_error", "", logging.ERROR, **facts)
    told = "failed: tune a/model; the lines below say why\nno such node\nsbatch --gpus 9\n"
    assert stream.getvalue().endswith(told)


def test_a_terminal_shows_what_runs_on_its_last_line(logger, clock):
    stream = attached(logger, live=True)
    start(logger, tune=2)
    tell(logger, "job_info", jobid=1, rule_name="tune", output=["results/digits/a/model"])
    last = stream.getvalue().rpartition(terminal.CLEAR)[2]
    assert last == "[0/2, 0 %] runs: tune a/model"


def test_who_wants_snakemakes_lines_has_them(logger, clock, monkeypatch):
    (plain,) = logger.handlers
    for wish in ({"verbose": True}, {"quiet": {"all"}}, {"dryrun": True}):
        settings = SimpleNamespace(**vars(SETTINGS) | wish)
        terminal.attach(logger, "results/digits", settings)
    monkeypatch.setenv("V", "1")
    terminal.attach(logger, "results/digits", SETTINGS)
    assert logger.handlers == [plain] and terminal.BARS not in os.environ
    logger.handlers[0].name = "a plugin's"
    monkeypatch.delenv("V")
    terminal.attach(logger, "results/digits", SETTINGS)
    assert logger.handlers == [plain]


def test_nobody_needs_to_read_it(logger, clock):
    stream = attached(logger)
    stream.close()
    start(logger, tune=1)
    assert isinstance(logger.handlers[0], Terminal)


# In Snakemake itself.

SNAKEFILE = """
import sys
sys.path.insert(0, {home!r})
from snakemake.logging import logger
from ect.runs import terminal

terminal.attach(logger, "results", workflow.output_settings)

rule all:
    input: expand("{{n}}.txt", n=range(3))

rule one:
    output: "{{n}}.txt"
    shell: "{command}; touch {{output}}"

onsuccess:
    terminal.finish(logger)
"""


QUIET = {k: v for k, v in os.environ.items() if k != "V"}


def run(folder, command, *words):
    """What Snakemake says on both streams, to its end."""
    (folder / "Snakefile").write_text(SNAKEFILE.format(home=str(HOME), command=command))
    words = ("--cores", "1", *words)
    return warm.run("snakemake", *words, cwd=folder, env=QUIET, stderr=subprocess.STDOUT).stdout


@pytest.mark.pipeline
def test_a_run_prints_at_most_two_lines_a_job(tmp_path):
    text = run(tmp_path, "true")
    lines = text.splitlines()
    done = [line.split()[3:5] for line in lines if line.startswith("[")]
    assert sorted(done) == [["one", f"{n}.txt:"] for n in range(3)], text
    assert len(lines) <= 2 * 4 and "done in" in lines[-1], text
    text = run(tmp_path, "true")
    assert text.splitlines()[-1].startswith("Nothing to be done; the results: results/")
    text = run(tmp_path, "true", "-n", "--forceall")
    assert "Job stats:" in text and "reason:" in text


@pytest.mark.pipeline
def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path):
    (tmp_path / "Snakefile").write_text(
        SNAKEFILE.format(home=str(HOME), command="touch begun; sleep 60")
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1"], cwd=tmp_path, text=True, env=QUIET,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 100
    while not (tmp_path / "begun").exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    text, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert text.splitlines()[-1] == "saved; run the same command to go on", text
    assert "Traceback" not in text and "Complete log" not in text, text
