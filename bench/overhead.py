"""What a study takes beside its work: python bench/overhead.py [--cells 1000] [--study FOLDER]

Prints JSON: seconds, and seconds on processors, of a verb's start, of planning a study of so many
tuned models (`snakemake -n`), and, with a folder in which the study of workflow/studies/smoke.yaml
has run, of a second run that finds nothing to do, and the share of its jobs' time that is beside
what they record of themselves: the start of a process, above all.
"""

import argparse
import base64
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]


def cost(words, folder=ROOT):
    """{seconds, processor_seconds} of a command; raises where it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 2), "processor_seconds": round(used, 2)}


def starts():
    """A verb that only helps, and what every other one loads."""
    return {
        "help": cost([sys.executable, "-m", "ect", "sample", "--help"]),
        "torch": cost([sys.executable, "-c", "import torch"]),
        "sample": cost([sys.executable, "-c", "from ect import evaluate"]),
        "train": cost([sys.executable, "-c", "from ect import train"]),
    }


def many(cells):
    """The default study with one experiment of so many tuned models, from 10 schedules."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    schedules = {f"k{n}": {"map": "sigmoid", "k": float(n)} for n in range(10)}
    rows = {"pretrain": ["ve"], "kimg": [60], "tune": "ect", "tune_kimg": 60}
    rows |= {"schedules": list(schedules), "samplers": ["one_step"]}
    rows["seeds"] = list(range(cells // len(schedules)))
    config["schedules"] |= schedules
    config["experiments"]["methods"]["rows"].append(rows)
    return config


def planning(cells):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.yaml"
        path.write_text(yaml.safe_dump(many(cells)))
        return cost([*SNAKEMAKE, "-n", "--quiet", "all", "--configfile", str(path)], folder)


def again(folder):
    """A run of the finished study in a folder, which finds nothing to do."""
    smoke = str(ROOT / "workflow/studies/smoke.yaml")
    return cost([*SNAKEMAKE, "-n", "--configfile", str(ROOT / "config.yaml"), smoke], folder)


def shares(folder):
    """{rule: jobs, their seconds from start to end, and the part of them that is not in run.json}
    of the jobs that Snakemake remembers in a folder and that write a run.json."""
    remembered, rules = Path(folder) / ".snakemake/metadata", {}
    for path in filter(Path.is_file, remembered.rglob("*")):
        name = "".join(path.relative_to(remembered).parts).replace("@", "")
        output = Path(folder) / base64.b64decode(name).decode()
        if output.name == "run.json" and output.exists():
            job, told = json.loads(path.read_text()), json.loads(output.read_text())["seconds"]
            rules.setdefault(job["rule"], []).append((job["endtime"] - job["starttime"], told))
    found = {}
    for rule, pairs in rules.items():
        whole, told = (sum(seconds) for seconds in zip(*pairs))
        found[rule] = {"jobs": len(pairs), "seconds": whole, "beside": 1 - told / whole}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--study", type=Path)
    args = parser.parse_args()
    found = {"starts": starts(), f"plan of {args.cells} cells": planning(args.cells)}
    if args.study:
        found["nothing to do"] = again(args.study)
        found["jobs"] = shares(args.study)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
