"""Which jobs Snakemake would run: its own dry run says so, which compares settings, inputs and
times where a file that is there says nothing. Loads no torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

from ect.config.load import CONFIG

OUTPUTS = re.compile(r"^ +output: (.+)$", re.MULTILINE)


def outputs(*studies):
    """The paths of all outputs of the jobs that `snakemake --configfile STUDIES` would run in the
    current folder; None where there is no Snakemake or no Snakefile, or where it cannot say."""
    laid = [study for study in studies if Path(study).resolve() != Path(CONFIG).resolve()]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1"]
    command += ["--configfile", *laid] if laid else []
    if not any(Path(folder, "Snakefile").is_file() for folder in (".", "workflow")):
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None
    found = OUTPUTS.findall(done.stdout + done.stderr)
    return {os.path.normpath(path.split(" ")[0]) for paths in found for path in paths.split(", ")}
