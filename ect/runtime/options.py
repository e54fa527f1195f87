"""The options of a command line: numbers between limits, paths, and a mistake in them as one line.

A script parses its words and works inside `errors_as_lines`.
"""

import argparse
import math
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from ect.runtime import checkpoint, crash
from ect.runtime.text import brief_words, shown, shown_path, whole_number


class Parser(argparse.ArgumentParser):
    """Prints an error, however long the word that it names, as one short line."""

    def error(self, message):
        """Print the message, and exit."""
        line = brief_words(shown(message, 100_000))
        super().error(line if len(line) <= 2000 else f"{line[:300]}...{line[-1600:]}")


def whole(least, most):
    """The type of an option that takes a whole number from `least` to `most`."""

    def number(text):
        value = whole_number(text)
        if not least <= value <= most:
            raise _refused(text, f"a whole number from {least} to {most}")
        return value

    return number


def amount(least, most):
    """The type of an option that takes a finite number from `least` to `most`."""

    def number(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # also for nan
            raise _refused(text, f"a number from {least:g} to {most:g}")
        return value

    return number


def folder(text):
    """The type of an option that takes a folder which is there."""
    if not os.path.isdir(text):
        raise _refused(text, "a folder that exists")
    return Path(text)


def new_file(text):
    """The type of an option that takes the path of a file to write."""
    return _writable(text, checkpoint.require_regular)


def new_folder(text):
    """The type of an option that takes the path of a folder to write."""
    return _writable(text, checkpoint.require_folder)


def require_here():
    """Raise `ValueError` where the working directory was deleted: nothing has a path then."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError(
            "the working directory was deleted; allowed: one that exists, after `cd`"
        ) from None


def _writable(text, require):
    try:
        require(text)
    except checkpoint.CheckpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def _refused(text, allowed):
    return argparse.ArgumentTypeError(f"found '{shown(text, 60)}'; allowed: {allowed}")


def said(error):
    """An error's message; of the machine's about a file, the file and what may stand there."""
    if not isinstance(error, OSError) or not error.strerror or "allowed" in str(error):
        return str(error)
    place = "a file or stdout" if error.filename is None else shown_path(error.filename)
    return f"{place}: {error.strerror}; allowed: a path that can be read or written"


@contextmanager
def errors_as_lines(file):
    """End a script, of this file, with one line and exit code 1 where its input is wrong or memory
    short, and as a Unix tool after Ctrl-C; `python -X dev` shows the whole error."""
    name = os.path.basename(file)
    try:
        yield
    except KeyboardInterrupt:
        print(f"{name}: stopped by SIGINT", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, FloatingPointError, RuntimeError, MemoryError) as error:
        if sys.flags.dev_mode:
            raise
        if crash.short_of_memory(error):
            sys.exit(f"{name}: memory is short; allowed: fewer images at once, or in all")
        if isinstance(error, RuntimeError):
            raise
        sys.exit(f"{name}: {brief_words(shown(said(error), 10_000))}")
