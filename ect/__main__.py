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

from ect.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
