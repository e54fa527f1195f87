# The config is read here and nowhere else; every other rule file takes names from this one.
import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

# The package beside these rules, also in a workflow that uses them as a module; the installed one
# where Snakemake has fetched the rules alone, as for a module by github(...). `ect` alone is taken
# from there, here and in jobs: a file beside it may be named like a module.
BESIDE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
if re.search("[{}]", str(BESIDE)):
    raise WorkflowError(f"found {BESIDE}; allowed: a clone in a path without braces (wildcards)")
if "ect" not in sys.modules and (BESIDE / "ect").is_dir():
    found = importlib.util.spec_from_file_location("ect", f"{BESIDE}/ect/__init__.py")
    sys.modules["ect"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(sys.modules["ect"])

try:
    import ect
except ModuleNotFoundError:
    raise WorkflowError(
        "the package ect is neither beside the workflow nor installed; allowed: `pip install` of the"
        " same version of this repository (docs/using.md)"
    ) from None

VERSION = "0.1.0"  # that of the package these rules are of
if ect.__version__ != VERSION:
    raise WorkflowError(
        f"found the installed package ect {ect.__version__}; allowed: {VERSION}, as these rules"
        " (`pip install` of the same version of this repository, docs/using.md)"
    )
PACKAGE = Path(ect.__file__).parent
TEMPLATES = PACKAGE / "report" / "templates"


def alone(package):
    """A folder that links to an installed package, and to nothing else of its environment."""
    folder = Path(".snakemake", "ect").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{os.getpid()}"
    scratch.symlink_to(package)
    scratch.replace(folder / package.name)
    return folder


HOME = str(BESIDE if PACKAGE.parent == BESIDE else alone(PACKAGE))
ELSEWHERE = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ.update(PYTHONPATH=os.pathsep.join(dict.fromkeys([HOME, *ELSEWHERE])))
# In an environment of conda there is no PYTHONPATH but this, by envs/ect.post-deploy.sh; and what
# `pip install --user` left would come before its packages.
os.environ.update(ECT_PYTHONPATH=HOME)
DEPLOYED = workflow.deployment_settings.deployment_method
if DeploymentMethod.CONDA in DEPLOYED:
    os.environ.update(PYTHONNOUSERSITE="1")

from ect.config import load, missing, published
from ect.config.cells import Milestone, Tuned
from ect.config.config import Config
from ect.config.dataset import SHARDS
from ect.config.evaluation import FETCHED
from ect.data import look
from ect.data.folder import fingerprint
from ect.models.trust import allow
from ect.runs import terminal
from ect.runtime import forks, lease, work
from ect.runtime.versions import STAGES
from ect.study import settings
from ect.study.advice import advice
from ect.study.jobs import compared

# Of a module, the config is a part of another workflow's, and has no places.
ALONE = not workflow.modifier.skip_configfile

try:
    load.require_config(ALONE)
except ValueError as error:
    raise WorkflowError(f"the config cannot be read:\n{error}") from None


configfile: load.CONFIG


# Studies lie over config.yaml, and `--config key=value` over all; Snakemake has read them already.
LAID = list(workflow.overwrite_configfiles)
BELOW = [file for file in workflow.configfiles if file not in LAID]

try:
    PLACES = load.places_of([*BELOW, *LAID], workflow.config_settings.config) if ALONE else {}
    STUDY = Config.read(config, PLACES)
    if workflow.is_main_process:  # a job of a cluster has a Snakemake of its own
        STUDY.fit(look.facts)
        if STUDY.averages and importlib.util.find_spec("torch"):  # else only their job tells
            from ect.training import reconstruct

            with STUDY.placed():
                reconstruct.require_near(STUDY)
except ValueError as error:
    raise WorkflowError(f"the config cannot be run:\n{error}") from None
if workflow.is_main_process:
    for line in [*advice(STUDY), *map(missing.told, missing.missing(STUDY))]:
        print(line, file=sys.stderr)
# A dry run plans without these; a run ends at its start, or, of a module, where Snakemake finds no
# such input.
ABSENT = {needed.path for needed in missing.missing(STUDY) if needed.job is None}

allow(STUDY.plugins)  # a model file runs these plugins and no others
ROOT = STUDY.root
if workflow.is_main_process and ALONE:  # a line a job; V=1: all of Snakemake's
    terminal.attach(logger, ROOT, workflow.output_settings)
# ROOT with the prefix of a module, which Snakemake adds to inputs and outputs but not to params.
PLACE = workflow.modifier.path_modifier.replace_prefix(ROOT)
DATA = f"{ROOT}/data/dataset.safetensors"
CLASSIFIER = f"{ROOT}/features/classifier.safetensors"
REFERENCE = f"{ROOT}/features/reference.safetensors"
SUMMARY = f"{ROOT}/features/summary.safetensors"
# [The distance of held-out images], where there are some.
FLOOR = [f"{ROOT}/data/floor.json"] if STUDY.dataset.tests else []

CELLS = {cell.folder: cell for cell in STUDY.all_cells()}
MODELS = list(dict.fromkeys(cell.model for cell in CELLS.values()))
MILESTONES = [model for model in MODELS if isinstance(model, Milestone)]
TUNED = [model for model in MODELS if isinstance(model, Tuned)]
SEARCHED = [f"{ROOT}/tables/steps.csv"] if STUDY.searched() else []
PAPER = STUDY.beside_published()
PAPER_TABLE = f"{ROOT}/tables/paper.csv"
PUBLISHED = str(published.FILE)
# [What is compared with its nearest training images], where the config asks for it.
COMPARED = [f"{ROOT}/{cell.folder}" for cell in compared(STUDY)]


def one_of(names):
    """The pattern of a wildcard that is one of the names; without names it matches nothing."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    pretrain="[a-z0-9_]+",
    schedule=one_of(STUDY.schedules),
    recipe=one_of(STUDY.tune),
    start_seed=r"\d+",
    seed=r"\d+",
    kimg=r"\d+",
    tune_kimg=r"\d+",
    model=r"(pretrain|tune)/\S+",
    sampler="|".join(STUDY.samplers),
    replicate=r"|-replicate-[1-9]\d*",
    repeat=r"|/repeat-\d+",
    experiment="|".join(STUDY.experiments),


def as_json(settings):
    """Settings as the one text that a job receives and that Snakemake compares."""
    return json.dumps(settings, separators=(",", ":"))


def verbatim(text):
    """A text of params that Snakemake takes as it is: it may hold {...}, which is no wildcard."""
    return lambda wildcards: text


def attempt_of(wildcards, attempt):
    """The number of the attempt: after two that ended with the same error there is no third."""
    return attempt


def usable_gpus():
    """How many GPUs jobs of this machine can lease; 0 where a cluster runs the jobs."""
    local = workflow.is_main_process and workflow.global_resources["_nodes"].value is None
    return len(lease.devices()) if local else 0


# Where there are GPUs, each job that uses one asks for one, unless a profile or a command says how
# many; and as many such jobs run at once as there are GPUs, unless `--resources gpu=` says how many.
GPUS = usable_gpus()
GPU = {"gpu": 1} if GPUS else {}
if GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS)


def leased_one(wildcards, resources):
    """The option --gpus of a job of one process, as `leased`."""
    asked = resources.get("gpu")
    return "--gpus 1" if isinstance(asked, int) and asked > 0 else ""


def leased(wildcards, resources):
    """The options --gpus and --nodes of a job, where a profile or a command sets the resources
    `gpu` and `nodes`. Snakemake does not compare params that depend on resources: no change of
    these re-runs a job."""
    asked = {"--gpus": resources.get("gpu"), "--nodes": resources.get("nodes")}
    return " ".join(f"{k} {n}" for k, n in asked.items() if isinstance(n, int) and n > 0)


def metrics_of(experiment):
    """The metrics.json files of an experiment's cells."""
    return [f"{ROOT}/{cell.folder}/metrics.json" for cell in STUDY.cells(experiment)]


def classifier_if_used():
    return [CLASSIFIER] if STUDY.features.extractor == "classifier" else []


def network_if_used(wildcards):
    """The file of the feature space's network: trained by the study, given or downloaded."""
    return classifier_if_used() + outside(STUDY.network_files())


def placed(text):
    """A text for params, with the prefix of a module in its paths."""
    return text.replace(f"{ROOT}/", f"{PLACE}/")


def classifier_option():
    return " ".join(f"--classifier {shlex.quote(placed(path))}" for path in classifier_if_used())


def outside(files):
    """Files that the config names: the prefix of a module does not move them."""
    if workflow.dryrun or workflow.modifier.is_main_snakefile():
        files = [file for file in files if file not in ABSENT]
    paths = files if PLACE == ROOT else [str(Path(file).absolute()) for file in files]
    if any(re.search("[{}]", path) for path in paths):
        raise WorkflowError(f"found braces in {paths}; allowed: paths of inputs without them")
    return paths


def release():
    """At the end of a workflow, delete the hard links to what its training runs published."""
    if workflow.is_main_process:
        work.release(ROOT)


onstart:
    try:
        missing.require(STUDY, DeploymentMethod.CONDA not in DEPLOYED)
    except ValueError as error:
        raise WorkflowError(f"the study cannot be run: {error}") from None
    if workflow.local_exec and not DEPLOYED:
        forks.start()


onsuccess:
    release()
    terminal.finish(logger)


onerror:
    release()
