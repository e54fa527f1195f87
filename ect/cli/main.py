"""The command line: `python -m ect VERB ...`, or `ect VERB ...` where the package is installed.

Files in, files out; settings as JSON or from a run.json.

torch and pandas are imported by the verb that needs them, so that help and errors come at once.
"""

import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext

from ect import __version__
from ect.cli import completion, files, jobs, lease, made, measure, report, runs
from ect.cli.arguments import UNFIT, count, is_ours, line_of, require, threads
from ect.models.trust import allowed, require_parts
from ect.runtime import crash, options
from ect.runtime.stop import Stopped
from ect.runtime.text import brief_words, shown, whole

VERBS: dict[Callable, tuple[str, dict]] = (
    jobs.VERBS | measure.VERBS | lease.VERBS | report.VERBS | runs.VERBS | completion.VERBS
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# What OpenMP's library reads when torch loads it: (the form, that form in words). Of another value
# it prints a line of its own, or never ends.
_SWITCH, _SIZE = (r"true|false", "true or false"), (r"\d{1,12} *[bkmg]?", "a size such as 4M")
_SPAN = r"(: *[1-9]\d{0,3} *(: *-?\d{1,4} *)?)?"  # of a place, or of places: :number:step
_CPUS = rf"!? *\d{{1,4}} *{_SPAN}"
_PLACE = rf"\{{ *{_CPUS}(, *{_CPUS})*\}} *{_SPAN}"
OPENMP = {
    "OMP_PROC_BIND": (
        r"true|false|(master|primary|close|spread)( *, *(master|primary|close|spread))*",
        "true, false, or a list of primary, close, spread",
    ),
    "OMP_PLACES": (
        r"(threads|cores|sockets|ll_caches|numa_domains)( *\( *\d{1,4} *\))?"
        rf"|{_PLACE}(, *!? *{_PLACE})*",
        "threads, cores, sockets, or places such as {0:4}",
    ),
    "OMP_SCHEDULE": (
        r"((non)?monotonic *: *)?(static|dynamic|guided|auto)( *, *\d{1,9})?",
        "static, dynamic, guided or auto",
    ),
    "GOMP_CPU_AFFINITY": (
        r"\d{1,4}(-\d{1,4}(:[1-9]\d{0,3})?)?([ ,]+\d{1,4}(-\d{1,4}(:[1-9]\d{0,3})?)?)*",
        "CPUs such as 0-3",
    ),
    "OMP_WAIT_POLICY": (r"active|passive", "active or passive"),
    "OMP_DISPLAY_ENV": (r"true|false|verbose", "true, false or verbose"),
    "OMP_TARGET_OFFLOAD": (r"mandatory|disabled|default", "mandatory, disabled or default"),
    "OMP_MAX_ACTIVE_LEVELS": (r"\d{1,3}", "a whole number from 0 to 999"),
    "OMP_THREAD_LIMIT": (r"0*[1-9]\d{0,5}", "a whole number from 1 to 999999"),
    "GOMP_SPINCOUNT": (r"infinite|infinity|\d{1,12} *[kmgt]?", "infinite, or a whole number"),
    "OMP_DEFAULT_DEVICE": (r"\d{1,4}", "a whole number from 0 to 9999"),
    "OMP_MAX_TASK_PRIORITY": (r"\d{1,9}", "a whole number from 0 on"),
    "GOMP_DEBUG": (r"[01]", "0 or 1"),
    **dict.fromkeys(
        ("OMP_DYNAMIC", "OMP_NESTED", "OMP_CANCELLATION", "OMP_DISPLAY_AFFINITY"), _SWITCH
    ),
    **dict.fromkeys(("OMP_STACKSIZE", "GOMP_STACKSIZE"), _SIZE),
}
# What torch reads when it is loaded: of another value it aborts, or prints lines of its own; and
# what makes oneDNN compute fp32 in fewer bits.
_OPTION = r"\w+:(\[[^][]*\]|[^][,]+)"
TORCH = {
    "ATEN_CPU_CAPABILITY": (
        r"default|avx2|avx512(_vnni)?|vsx|zvector|sve\d*", "default, avx2 or avx512"
    ),
    **dict.fromkeys(
        ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
        (rf"{_OPTION}(,{_OPTION})*,?", "option:value,..., such as expandable_segments:True"),
    ),
    **dict.fromkeys(
        ("TORCH_SHOW_CPP_STACKTRACES", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
         "TORCH_BLAS_PREFER_CUBLASLT"),
        (r"[01]", "0 or 1"),
    ),
    **dict.fromkeys(
        ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
        (r"strict", "strict; fewer bits are a recipe's or an evaluation's `precision`"),
    ),
}  # fmt: skip
BEFORE = ("--threads", "--attempt")  # options of all verbs


class Parser(options.Parser):
    """Names the nearest verb or option where one is mistyped."""

    def _print_message(self, message, file=None):
        """Print help; raises `OSError` where that fails, which argparse would pass over."""
        print(message or "", end="", file=file or sys.stderr)

    def error(self, message):
        """Print the message and what was meant, and exit."""
        found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        near = _meant(found[1], re.findall(r"[\w-]+", found[2])) if found else ""
        super().error(message + near)

    def parse_args(self, args=None, namespace=None):
        """The arguments; an option that a verb does not have ends with the nearest one."""
        found, more = self.parse_known_args(args, namespace)
        if more:
            known, word = options_by_verb().get(found.verb, ()), more[0].partition("=")[0]
            allowed = f"allowed: {', '.join([*known, '--help'])}{_meant(word, known)}"
            if word in BEFORE:
                allowed = f"allowed: before the verb, as in `ect {word} 1 {found.verb}`"
            self.error(f"unrecognized arguments: {' '.join(more)}; {allowed}")
        return found


def _meant(word, known):
    from ect.config.base import nearest

    return nearest(word, known)


def parser():
    """The command line."""
    top = Parser(
        prog="ect",
        description="Easy Consistency Tuning: train, sample, evaluate, report. Type `python -m ect"
        " VERB`. Snakemake calls these verbs; `snakemake --cores all` runs the whole study.",
    )
    top.add_argument("--version", action="version", version=f"ect {__version__}")
    top.add_argument(BEFORE[0], type=threads, help="CPU threads (default: OMP_NUM_THREADS, or all)")
    top.add_argument(
        BEFORE[1],
        type=count,
        help="number of this attempt (1, 2, ...); an error that two attempts in a row ended with is"
        " not tried a third time",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for function, (help, arguments) in VERBS.items():
        name = function.__name__.replace("_", "-")
        sub = verbs.add_parser(name, help=help, description=help)
        sub.set_defaults(function=function)
        for argument, details in arguments.items():
            sub.add_argument(argument, **details)
        if function is completion.completion:
            sub.set_defaults(verbs=options_by_verb())
    return top


def options_by_verb():
    """{verb: its options}, as they are typed."""
    return {
        function.__name__.replace("_", "-"): [name for name in arguments if name.startswith("-")]
        for function, (_, arguments) in VERBS.items()
    }


def limit_threads(number):
    """Set the number of CPU threads before torch is loaded."""
    if number:
        for name in THREADS:
            os.environ[name] = str(number)


def require_environment():
    """Raise `ValueError` where the environment holds what a library that reads it cannot take."""
    for name in filter(os.environ.get, THREADS):
        for level in os.environ[name].split(","):  # OpenMP's: one for each level of nesting
            whole(name, level.strip(), 1, 1024)
    for name, (form, words) in (OPENMP | TORCH).items():
        found = os.environ.get(name, "").strip()
        if found and not re.fullmatch(form, found, re.IGNORECASE | re.ASCII):
            raise ValueError(f"{name}: found '{shown(found, 60)}'; allowed: {words}")
    if date := os.environ.get("SOURCE_DATE_EPOCH"):  # matplotlib's, of a pdf
        whole("SOURCE_DATE_EPOCH", date, 0, 10**11)


def require_settings(args):
    """Raise `ValueError` unless the settings of a verb are such as a config gives it, whoever wrote
    them; those of `draw` are its figure's."""
    if "settings" in args and args.function.__name__ == "draw":
        from ect.config import drawing

        drawing.require(args.figure, args.settings)
    elif "settings" in args:
        from ect.config import verbs

        verbs.require(args.function.__name__, args.settings)
    elif getattr(args, "solvers", None) is not None:
        from ect.config import drawing

        drawing.require_solvers(args.solvers)


def first_only(verb):
    """In the place of `warnings.showwarning`: a job's first warning on one line, no other; with V=1
    Snakemake sets no ECT_BARS, and all are shown."""
    told = []

    def show(message, category, filename, lineno, file=None, line=None):
        if not told:
            text = shown(" ".join(str(message).split()), 160)
            print(f"ect {verb}: {category.__name__}: {text} (V=1 shows all)", file=sys.stderr)
        told.append(message)

    return show


def main(argv=None):
    """Run a verb, and return its exit code: that of a Unix tool after Ctrl-C and, without a word,
    where whoever read stdout has ended, as `| head` does."""
    _open_streams()
    try:
        try:
            return run(argv)
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        if isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE
        print(f"ect: stdout: {error.strerror}; allowed: one that takes text", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # of a verb that saves nothing on its way
        print("ect: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT


def _open_streams():
    """Open files 0 to 2 where the caller has closed them: the next file that is opened would be one
    of them, and get what is printed; and what goes to no stderr, `print` writes to stdout. A letter
    that the terminal's encoding lacks is printed as an escape."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(argv=None):
    """Run a verb, and return its exit code. An error in its input is one line and exit code 1. A
    run that saved its work and stopped is one line and exit code 75 (time), 69 (the end of
    torchrun) or 128 + the number of a signal."""
    args = parser().parse_args(argv)
    if os.environ.get("ECT_BARS") == "0":  # one count stands for the bars of all jobs
        sys.stderr.isatty = lambda: False  # type: ignore[method-assign]
        warnings.showwarning = first_only(args.verb)
    warnings.filterwarnings("ignore", r"`torch.jit.\w+` is deprecated")  # Inception uses it
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage and size; errors say them
    try:
        options.require_here()
        limit_threads(args.threads)
        require_environment()
        require(args)
        require_settings(args)
        require_parts(getattr(args, "plugins", []))
        files.tell_version(args)
        files.require_outputs(args)
        untold = made.require(args)
        out = files.place(args)
        noted = crash.noted(out, args.attempt) if out and args.attempt else nullcontext()
        permitted = allowed(getattr(args, "plugins", []))
        with files.nothing_left(args), permitted, noted, files.recorded(args):
            args.function(args)
        for line in untold:
            print(f"ect {args.verb}: {line}", file=sys.stderr)
    except Stopped as stop:
        print(f"ect {args.verb}: {stop}", file=sys.stderr)
        return stop.code
    except (ValueError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and files.place(args) is None:
            raise  # of stdout, all that such a verb writes to
        text = options.said(error) if is_ours(error) else " ".join(options.said(error).split())
        lines = (brief_words(shown(line, len(line) * 12)) for line in text.split("\n"))
        print(f"ect {args.verb}:", "\n".join(lines), file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        found = f"found no package {error.name} in {sys.prefix}; allowed: an environment with"
        print(f"ect {args.verb}: {found} the packages of requirements.lock", file=sys.stderr)
        return 1
    except UNFIT as error:
        if sys.flags.dev_mode:
            raise
        print(f"ect {args.verb}: {line_of(error)}", file=sys.stderr)
        return 1
    return 0
