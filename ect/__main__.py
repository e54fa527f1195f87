"""`python -m ect VERB ...`: the command line of `ect/cli/main.py`."""

import sys

from ect.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
