"""What `snakemake` prints of a run on this machine: a line for each finished job, with the count
and the time left of all, warnings, errors, and the page at the end. Loads no torch.

It takes the place of the handler with which Snakemake's logger writes to the terminal; the log in
.snakemake/log/ has everything as before. `V=1` or --verbose leaves Snakemake's own lines.
"""

import logging
import os
import re
import shutil
import time
from pathlib import Path

from ect.report.markup import duration
from ect.runs import whole
from ect.runtime.text import one_line

OWN = "DefaultStreamHandler"  # the name of Snakemake's handler for the terminal
BEFORE = ("Assuming unrestricted", "Config file ", "Using workflow specific profile")
NOTHING = "Nothing to be done"
STOPPING = "Terminating processes on user request"
NO_JOBS = ("total", "study", "all")  # the sum, and the rules that only name all results
BARS = "ECT_BARS"  # 0 in the environment of jobs: none draws a bar of its own
KILLED = re.compile(r"died with <Signals\.(\w+)")  # what Snakemake says of such a job
CLEAR = "\r\x1b[K"


def attach(logger, root, settings):
    """Put a `Terminal` in the place of Snakemake's handler, unless someone wants its lines: a dry
    run, --verbose, --quiet, V=1 in the environment, or a logger plugin."""
    found = [handler for handler in logger.handlers if handler.name == OWN]
    if not found or settings.dryrun or settings.verbose or settings.quiet or os.environ.get("V"):
        return
    os.environ[BARS] = "0"
    logger.removeHandler(found[0])
    logger.addHandler(Terminal(found[0], root))


class Terminal(logging.Handler):
    """A handler of the records of Snakemake's logger, which writes to the stream of `plain`, its
    own handler. `root` is the folder of the study's results."""

    def __init__(self, plain, root):
        super().__init__()
        self.plain, self.root, self.stream = plain, Path(root), plain.stream
        self.live = plain.stream.isatty()
        self.began = self.interrupted = self.failed = self.killed = None
        self.left: dict[str, int] = {}  # {rule: its jobs that are not done}
        self.running: dict[int, tuple] = {}  # {id: (rule, file, when it began)}
        self.took: dict[str, list] = {}  # {rule: seconds of its finished jobs}
        self.before: dict[str, float] = {}  # {rule: mean seconds of its jobs in earlier runs}
        self.total = self.done = 0

    def emit(self, record):
        event = getattr(record, "event", None)
        told = getattr(self, f"_{event}", None) if event else None
        if told is not None:
            told(record)
        elif self.began is None and event is None:
            self._before(record)
        elif record.levelno >= logging.WARNING:
            self._warning(record)
        elif not event:
            self._said(str(record.msg))
        self._show_running()
        if event in ("run_info", "job_info", "job_finished"):
            whole.tell(self.root, self.total, self.done, self.left_seconds(), self.untimed())

    def _before(self, record):
        """Whatever is not a run, such as --unlock, keeps its words."""
        if not str(record.msg).startswith(BEFORE):
            self.plain.handle(record)

    def _workflow_started(self, record):
        self.began = time.monotonic()

    def _run_info(self, record):
        self.left = {rule: n for rule, n in record.stats.items() if rule not in NO_JOBS}
        self.total = sum(self.left.values())
        self.before = whole.means(self.root)
        details = f"`python -m ect status {self.root}` in another terminal has the details"
        self.line(f"{self.total} job{'s' * (self.total != 1)}; {details}")

    def _job_info(self, record):
        file = (record.output or [""])[0].split(" ")[0]
        self.running[record.jobid] = (record.rule_name, file, time.monotonic())

    def _job_finished(self, record):
        rule, file, began = self.running.pop(record.job_id, ("", "", time.monotonic()))
        seconds = time.monotonic() - began
        if file:  # the job that only names all results has none
            self.left[rule] = self.left.get(rule, 1) - 1
            self.took.setdefault(rule, []).append(seconds)
            self.done += 1
            whole.keep_means(self.root, self.means())
            took = f"{duration(seconds)}{self.rest()}"
            self.line(f"{self.count()} {rule} {self._short(file)}: {took}")

    def _job_error(self, record):
        rule, file, _ = self.running.pop(record.jobid, (record.rule_name, "", 0))
        if not self.interrupted:
            self.failed = True
            why = f"killed by {self.killed}" if self.killed else "the lines above say why"
            if logs := getattr(record, "log", None):  # of a cluster's job
                why = f"its log: {logs[-1]}"
            told = str(getattr(record, "rule_msg", None) or "").splitlines()
            if told:  # why a cluster did not take it
                why = "the lines below say why"
            self.line(f"failed: {rule} {file}; {why}")
            for line in told:
                self.line(line)
            self.killed = None

    def _progress(self, record):
        """The count is in the line of each job."""

    _shellcmd = _job_started = _resources_info = _progress

    def _error(self, record):
        """Why a job failed, or the run ends."""
        if str(record.msg).startswith("RuleException:\nCalledProcessError"):
            killed = KILLED.search(record.msg)
            self.killed = killed and killed[1]
        elif self.interrupted:
            self.line("saved; run the same command to go on")
        elif self.failed:
            self.line("not finished; the same command goes on from what is done")
        else:
            self._plain(record)

    def _warning(self, record):
        if not self.interrupted:
            self._plain(record)

    def _said(self, text):
        if text.startswith(STOPPING):
            self.interrupted = True
            self.line("stopping: what runs saves its work")
        elif text.startswith(NOTHING):
            self.line(f"{NOTHING}; {self._page()}")
        elif text.startswith("Complete log") and self.failed:
            self.line(text)

    def finish(self):
        """The last line of a run that is done."""
        whole.ended(self.root)
        spent = duration(time.monotonic() - (self.began or time.monotonic()))
        self.line(f"done in {spent}; {self._page()}")

    def _page(self):
        page = self.root / "index.html"
        return f"the page: {page}" if page.is_file() else f"the results: {self.root}/"

    def count(self):
        width = len(str(self.total))
        share = f"{100 * self.done // max(self.total, 1)} %"
        return f"[{self.done:{width}}/{self.total}, {share}]"

    def rest(self):
        """The time left, in words; nothing before the first jobs are done."""
        told = whole.left(self.left_seconds(), self.untimed())
        return f"; {told}" if told else ""

    def means(self):
        """{rule: mean seconds of its jobs}, in this run or, if none has ended, in earlier ones."""
        return self.before | {rule: sum(took) / len(took) for rule, took in self.took.items()}

    def untimed(self):
        """{rule: its jobs left} of rules of which no job has ever ended, if there are many."""
        known, many = self.means(), sum(self.left.values()) / 10
        return {rule: n for rule, n in self.left.items() if n > many and rule not in known}

    def left_seconds(self):
        """The time left without the `untimed` jobs, as a rule's jobs have taken so far; None before
        the first ones, and at the end."""
        seconds = sum(map(sum, self.took.values()))
        elapsed = time.monotonic() - (self.began or time.monotonic())
        if self.done >= self.total or not seconds or not elapsed:
            return None
        means, untimed = self.means(), self.untimed()
        mean = seconds / sum(map(len, self.took.values()))
        timed = {rule: n for rule, n in self.left.items() if rule not in untimed}
        work = sum(n * means.get(rule, mean) for rule, n in timed.items())
        return work * elapsed / seconds

    def line(self, text):
        """A line of its own."""
        self._write(f"{CLEAR if self.live else ''}{one_line(text)}\n")

    def _short(self, file):
        """A file without the folder of the results, and without the name of its kind."""
        return file.removeprefix(f"{self.root}/")

    def _plain(self, record):
        if self.live:
            self._write(CLEAR)
        self.plain.handle(record)

    def _show_running(self):
        """On a terminal, what runs, on the last line."""
        if not self.live or not self.running or self.interrupted:
            return
        names = ", ".join(f"{rule} {self._short(file)}" for rule, file, _ in self.running.values())
        text = one_line(f"{self.count()} runs: {names}")
        self._write(CLEAR + text[: shutil.get_terminal_size().columns - 1])

    def _write(self, text):
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # nobody reads it; the run goes on
            return


def finish(logger):
    """Tell the page at the end of a run."""
    for handler in logger.handlers:
        if isinstance(handler, Terminal):
            handler.finish()
