"""Kills a study again and again, and compares its final results: python bench/kills.py --kills 50

A small study runs once undisturbed in a temporary copy of the workflow, then in a second copy in
which, at random moments, SIGKILL ends Snakemake and every job. `snakemake --unlock` and
`--rerun-incomplete` go on, until the study has finished; then its results are deleted and the next
round begins, until so many kills have been made. Every round's tables, models and logs must be the
undisturbed ones, byte for byte, and no work in progress may be left (half-written files of other
jobs may: their names are unique). Training runs save every half second here.
"""

import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from ect.runtime.options import Parser, amount, errors_as_lines, whole

ROOT = Path(__file__).parent.parent
SMOKE = "workflow/studies/smoke.yaml"
KEPT = ("tables/*", "**/model.safetensors", "**/snapshots.safetensors", "**/metrics.json*")


def overlay(kimg):
    """Two milestones and two tuning runs of `kimg` thousand images each, one with snapshots."""
    start = {"pretrain": ["ve"], "samplers": ["one_step"]}
    tuned = start | {"kimg": [2 * kimg], "tune_kimg": kimg, "schedules": ["sigmoid"]}
    shown = {"kimg": 2 * kimg, "tune_kimg": kimg}
    rows = [start | {"kimg": [kimg]}, tuned | {"tune": "ect"}, tuned | {"tune": "ect_slope"}]
    return {
        "study": "kills",
        "pretrain": {"ve": {"kimg": 2 * kimg, "every": kimg}, "flow": None},
        "experiments": {
            "methods": {"rows": rows},
            "schedules": None,
            "split": None,
            "solvers": None,
        },
        "figures": {"samples": shown, "loss": shown},
        "search": None,
    }


def copied(folder, kimg):
    """A copy of the workflow with the small study, whose training runs save every half second."""
    for name in ("Snakefile", "config.yaml", "config", "profiles", "workflow", "ect", "envs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay(kimg)))
    file = folder / "ect" / "training" / "train.py"
    usual, often = (
        "SAVE_SECONDS, SAVING_SHARE = 60.0, 0.02",
        "SAVE_SECONDS, SAVING_SHARE = 0.5, 1.0",
    )
    assert usual in file.read_text()
    file.write_text(file.read_text().replace(usual, often))
    return folder


def snakemake(folder, *words):
    """Start Snakemake in a process group of its own, its words appended to a log."""
    command = [sys.executable, "-m", "snakemake", "--cores", "all", *words]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(folder / "log", "a") as log:
        return subprocess.Popen(
            [*command, "--configfile", SMOKE, "overlay.yaml"],
            cwd=folder,
            env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finished(folder, *words):
    """Run Snakemake to its end; raises `RuntimeError` with the end of the log if it fails."""
    if snakemake(folder, *words).wait() != 0:
        raise RuntimeError((folder / "log").read_text()[-4000:])


def artefacts(folder):
    results = folder / "results" / "kills"
    found = sorted({path for pattern in KEPT for path in results.glob(pattern)})
    return {str(path.relative_to(results)): path.read_bytes() for path in found}


def published(folder):
    """{run.json of a training run: its text}, which differs between runs in the seconds taken."""
    logs = (folder / "results" / "kills").glob("*/**/metrics.jsonl")
    records = (path.with_name("run.json") for path in logs)
    return {path: path.read_text() for path in records if path.exists()}


def killed_until_done(folder, moments, kills):
    """One round: the number of kills, and of models trained again after they were published."""
    made, texts = 0, collections.defaultdict(set)

    def note():
        for path, text in published(folder).items():
            texts[path].add(text)

    while True:
        run = snakemake(folder, "--rerun-incomplete")
        try:
            run.wait(next(moments) if made < kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            made += 1
            note()
            finished(folder, "--unlock")
            continue
        if run.returncode != 0:
            raise RuntimeError((folder / "log").read_text()[-4000:])
        note()
        return made, sum(len(found) - 1 for found in texts.values())


def starts(folder):
    """{rule: jobs started}, and the number of training runs that resumed from a saved state."""
    log = (folder / "log").read_text()
    rules = collections.Counter(re.findall(r"^(?:local)?rule (\w+):", log, re.MULTILINE))
    return rules, len(re.findall(r"going on from image", log))


def report(calm, wild, rounds, made, twice):
    needed, _ = starts(calm)
    done, resumed = starts(wild)
    extra = {rule: n - rounds * needed[rule] for rule, n in done.items()}
    return {
        "kills": made,
        "rounds": rounds,
        "jobs_started_again": {rule: n for rule, n in extra.items() if n},
        "trainings_that_went_on": resumed,
        "trainings_published_and_trained_again": twice,
    }


def parser():
    found, seconds = Parser(description=__doc__), amount(0.01, 1e6)
    found.add_argument("--kills", type=whole(1, 10**6), default=50)
    found.add_argument("--seed", type=whole(0, 10**18), default=0)
    found.add_argument(
        "--kimg",
        type=whole(1, 10**6),
        default=8,
        help="thousand images of each of the four training runs",
    )
    found.add_argument(
        "--seconds", type=seconds, nargs=2, default=(4.0, 30.0), help="range of times until a kill"
    )
    return found


def main():
    args = parser().parse_args()
    source = random.Random(args.seed)
    moments = iter(lambda: source.uniform(*args.seconds), None)
    with tempfile.TemporaryDirectory() as folder:
        calm, wild = Path(folder) / "calm", Path(folder) / "wild"
        for path in (calm, wild):
            path.mkdir()
            copied(path, args.kimg)
        began = time.monotonic()
        finished(calm)
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        wanted, made, rounds, twice = artefacts(calm), 0, 0, 0
        while made < args.kills:
            kills, again = killed_until_done(wild, moments, args.kills - made)
            made, rounds, twice = made + kills, rounds + 1, twice + again
            found = artefacts(wild)
            wrong = [name for name in wanted.keys() | found if wanted.get(name) != found.get(name)]
            left = [str(p) for p in (wild / "results").rglob("*.work")]
            halves = sum(1 for p in (wild / "results").rglob("*.partial"))
            line = {"round": rounds, "kills": kills, "files": len(found), "halves_left": halves}
            print(json.dumps(line), flush=True)
            if wrong or left:
                sys.exit(f"differ: {sorted(wrong)}; left over: {left}")
            shutil.rmtree(wild / "results")
        print(json.dumps(report(calm, wild, rounds, made, twice), indent=1))
        print(f"all of {len(wanted)} files are the undisturbed ones, byte for byte, every round")


if __name__ == "__main__":
    with errors_as_lines(__file__):
        main()
