"""`python -m ect VERB ...`: the command line of `ect/cli/main.py`."""

import os
import sys

# What leads the search for modules is the working directory, or PYTHONPATH with this repository: a
# file in either that is named like a module, json.py, would hide that one. `ect` is found already.
HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
try:
    NEAR = {os.getcwd(), *([HOME] if os.path.exists(os.path.join(HOME, "Snakefile")) else [])}
except FileNotFoundError:
    sys.exit("ect: the working directory was deleted; allowed: one that exists, after `cd`")
sys.path[:] = [place for place in sys.path if os.path.realpath(place) not in NEAR]

from ect.runtime import forks  # noqa: E402


def main():
    """The exit code of what was asked for, in a child of the run's server where there is one."""
    if sys.argv[1:2] == [forks.SERVE]:
        from ect.runtime import forkserver

        return forkserver.serve(sys.argv[2], work)
    code = forks.delegated(sys.argv[1:])
    return work(sys.argv[1:]) if code is None else code


def work(words):
    """Do what is asked for; returns the exit code."""
    from ect.cli import main

    return main.main(words)


if __name__ == "__main__":
    sys.exit(main())
