"""What a study costs beside its work: python bench/overhead.py [--cells 1000] [--study FOLDER]

Prints JSON: wall-clock seconds, processor seconds and memory of starting each verb, and of planning
a study with so many tuned models (`snakemake -n`). With a folder in which the default study has run
undisturbed, also of planning it again, with nothing to do, and the share of the cores' time that
was not work: mostly starts of processes.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from ect.runtime.options import Parser, errors_as_lines, folder, whole

ROOT = Path(__file__).parent.parent
PLAN = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all"]
PLAN += ["--snakefile", str(ROOT / "Snakefile"), "--configfile"]


def cost(words, folder=ROOT):
    """{seconds, processor_seconds, memory_mib: of its largest process} of a command; raises where
    it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = round(time.perf_counter() - started, 2)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    processors = round(used.ru_utime + used.ru_stime, 2)
    memory = used.ru_maxrss // 1024  # this process's too, which the command replaces (exec)
    return {"seconds": seconds, "processor_seconds": processors, "memory_mib": memory}


LOADS = {
    "torch": "import torch",
    "sample": "from ect.evaluation import sample",
    "train": "from ect.training import train",
    "evaluate": "from ect.evaluation import evaluate; import cleanfid.fid",
}


def starts():
    """Costs of `--help` and of the imports of other verbs: the second time, from cached files."""
    costs = {"help": cost([sys.executable, "-m", "ect", "sample", "--help"])}
    for name, line in LOADS.items():
        costs[name] = [cost([sys.executable, "-c", line]) for _ in range(2)][-1]
    return costs


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
        return cost([*PLAN, str(path)], folder)


def again(folder):
    """A run of the finished study in a folder, which finds nothing to do."""
    return cost([*PLAN, str(ROOT / "config.yaml")], folder)


def jobs_of(folder):
    """(rule, start, end, outputs) of each job that Snakemake has recorded in a folder."""
    records, jobs = Path(folder) / ".snakemake/metadata", {}
    for path in filter(Path.is_file, records.rglob("*")):
        name = "".join(path.relative_to(records).parts).replace("@", "")
        record = json.loads(path.read_text())  # of one output
        job = jobs.setdefault((record["rule"], record["job_hash"]), {"times": [], "outputs": []})
        job["times"] += [record["starttime"], record["endtime"]]
        job["outputs"].append(Path(folder) / base64.b64decode(name).decode())
    return [
        (rule, min(job["times"]), max(job["times"]), job["outputs"])
        for (rule, _), job in jobs.items()
    ]


def shares(folder, start):
    """{rule: jobs, their seconds from start to end, and those of work}, and the share of all cores'
    time from the first start to the last end that was not work. Work is the seconds in run.json;
    for evaluations, which write none, all but `start` seconds; for figures and tables, nothing."""
    jobs, rules = jobs_of(folder), {}
    for rule, began, ended, outputs in jobs:
        records = [path for path in outputs if path.name == "run.json"]
        work = sum(json.loads(path.read_text())["seconds"] for path in records)
        if rule in ("evaluate", "measure_floor"):
            work = ended - began - start
        row = rules.setdefault(rule, {"jobs": 0, "seconds": 0.0, "work": 0.0})
        for key, value in (("jobs", 1), ("seconds", ended - began), ("work", work)):
            row[key] += value
    _, began, ended, _ = zip(*jobs)
    whole = os.cpu_count() * (max(ended) - min(began))
    return rules | {"beside": 1 - sum(row["work"] for row in rules.values()) / whole}


def parser():
    found = Parser(description=__doc__.partition("\n")[0])
    found.add_argument("--cells", type=whole(10, 10**6), default=1000)
    found.add_argument("--study", type=folder)
    return found


def main():
    args = parser().parse_args()
    if args.study and not (args.study / ".snakemake" / "metadata").is_dir():
        found = f"--study: found {args.study}, without .snakemake/metadata"
        parser().error(f"{found}; allowed: a folder in which the default study has run")
    found = {"starts": starts(), f"plan of {args.cells} cells": planning(args.cells)}
    if args.study:
        found["nothing to do"] = again(args.study)
        found["jobs"] = shares(args.study, found["starts"]["evaluate"]["seconds"])
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
