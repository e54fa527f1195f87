"""Real runs of rules whose jobs fail, or are shared: a copy of the workflow for each."""

import re

import pytest
import yaml
from PIL import Image

from ect.config import load
from ect.config.config import Config
from tests.helpers.workflow import SMOKE, copy_workflow, snakemake

pytestmark = pytest.mark.pipeline

ODD = '''"""A weight and a sampler that note each call and fail as no mistake of a config does."""

from ect.plugins import sampler, weight


def fail(name):
    with open(name, "a") as file:
        file.write("x")
    raise KeyError(name)


@weight
def odd(s, r, sd):
    return fail("odd") if len(s) == 20 else 1 / s**2


@sampler
def strange(f, process, eps):
    return fail("strange")
'''


@pytest.fixture
def study(tmp_path):
    """A copy of the workflow in which nothing has run, with an empty overlay."""
    copy_workflow(tmp_path)
    (tmp_path / "overlay.yaml").write_text("{}")
    return tmp_path


def run(study, target, *words, new=False):
    done = snakemake(study, target, *words, "--configfile", SMOKE, "overlay.yaml", new=new)
    return done.returncode, done.stdout + done.stderr


def test_what_is_no_cell_of_the_study_is_named(study):
    asked = "pretrain/ve/s0/k1/two_step"
    code, said = run(study, f"results/smoke/{asked}/metrics.json", "-n")
    assert code == 1 and "KeyError" not in said
    cells = len(Config.read(load.read("config.yaml", SMOKE)).all_cells())
    told = f"ValueError: {asked} is no cell of the study 'smoke'; allowed: the {cells} of its"
    assert told in said
    model = "results/smoke/tune/ve/s0/k1/{}/{}/k1/s0/model.safetensors"
    for names, known in ((("none", "ect"), 0), (("sigmoid", "none"), 0), (("sigmoid", "ect"), 1)):
        code, said = run(study, model.format(*names), "-n")
        assert code == 1 - known and ("No rule to produce" in said) == (not known)


def test_a_mistake_is_told_with_its_file_and_line_before_any_job(study):
    """Also where the output of the rule that would ask for it is there already."""
    (study / "results/smoke/tables").mkdir(parents=True)
    (study / "results/smoke/tables/methods.csv").touch()
    (study / "overlay.yaml").write_text("tune: {ect: {batch: 8}}\npretrain:\n  ve: {seed: -1}\n")
    code, said = run(study, "results/smoke/tables/methods.csv")
    told = "overlay.yaml: line 3: pretrain.ve.seed: found -1; allowed: greater than or equal to 0"
    assert code == 1 and told in said.splitlines()
    (study / "overlay.yaml").write_text("study: one\nstudy: two\n")
    code, said = run(study, "all", "-n")
    assert code == 1 and "overlay.yaml: line 2: study: found again, after line 1" in said
    (study / "overlay.yaml").write_text("{}")
    code, said = run(study, "all", "-n", "--config", "evaluation={images: 1}")
    assert code == 1 and "command line: evaluation.images: found" in said
    (study / "config.yaml").write_text("study: a\nb: c: d\n")
    code, said = run(study, "all", "-n")
    assert code == 1 and "config.yaml: line 2: not YAML (mapping values" in said


def test_braces_in_texts_of_a_config_are_no_wildcards(study):
    for index in range(16):
        path = study / "{photos}" / f"{{{index % 2}}}" / f"{{{index}}}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (15 * index, 0, 0)).save(path)
    overlay = {
        "dataset": {
            "source": "images", "path": "{photos}", "held_out": 2, "resolution": 8, "channels": 1,
            "classes": "folders",
        },
        "features": {"classifier": {"batch": 8}},
        "samplers": {"one_step": {"label": "{1} step, {wildcards.model}"}},
        "experiments": {"methods": {"question": "What is {this}, {not, one}?"}},
    }  # fmt: skip
    (study / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    code, said = run(study, "results/smoke/data/dataset.safetensors")
    assert code == 0, said
    (study / "overlay.yaml").write_text(yaml.safe_dump(overlay | {"dataset": {"held_out": 300}}))
    code, said = run(study, "all", "-n")
    assert code == 0, said


def test_a_clone_in_a_path_with_braces_is_refused(tmp_path):
    clone = tmp_path / "{clone}"
    clone.mkdir()
    copy_workflow(clone)
    (clone / "overlay.yaml").write_text("{}")
    code, said = run(clone, "all", "-n")
    assert code == 1 and "allowed: a clone in a path without braces" in said


def test_jobs_find_packages_where_the_workflow_found_them(study, monkeypatch):
    """For instance in a folder of `pip install --target`."""
    noting = "import pathlib, sys\npathlib.Path('seen').open('a').write(' '.join(sys.orig_argv))"
    (study / "packages").mkdir()
    (study / "packages/sitecustomize.py").write_text(noting)
    monkeypatch.setenv("PYTHONPATH", str(study / "packages"))
    assert run(study, "results/smoke/data/dataset.safetensors", new=True)[0] == 0
    assert "-m ect --threads" in (study / "seen").read_text()


def test_snakemake_tries_a_crash_that_repeats_itself_twice(study):
    """Of four attempts only two train, or draw; the next run of Snakemake tries again."""
    (study / "odd.py").write_text(ODD)
    overlay = {
        "plugins": ["odd.py"],
        "pretrain": {"ve": {"weight": "odd", "batch": 20}},
        "samplers": {"heun": {"kind": "strange", "steps": None, "nfe": 1}},
    }
    (study / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    trained, drawn = (f"results/smoke/pretrain/{name}" for name in ("ve/s0/k1", "flow/s0/k1/heun"))
    for name, job, words in (
        ("odd", f"{trained}/model.safetensors", ()),
        ("strange", f"{drawn}/samples.npz", ("--retries", "3")),
    ):
        for calls in (2, 4):
            code, said = run(study, job, *words)
            assert code == 1 and said.count("Trying to restart") == 3, said
            assert said.count("two attempts ended with ValueError: plugins: odd.py") == 2, said
            assert f"KeyError: '{name}'" in said
            assert len((study / name).read_text()) == calls


def test_gpus_and_nodes_are_the_trainers_words(study, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["pretrain:nodes=2", "pretrain:gpu=8", "sample:gpu=2"]
    drawn = "results/smoke/pretrain/ve/s0/k1/one_step/samples.npz"
    code, said = run(study, drawn, "-n", "--set-resources", *words)
    assert code == 0, said
    ends = [line.partition("--gpus")[2] for line in said.splitlines() if "--gpus" in line]
    assert ends == [" 8 --nodes 2", " 8 --nodes 2", " 2"]


def test_jobs_that_use_a_gpu_ask_for_one_where_there_are_some(study, monkeypatch):
    """As many at once as a lease has to give, unless a command says how many; a cluster's profile
    says itself which jobs have one. Where features are kept, metrics need none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def asking(*words):
        code, said = run(study, "all", "-n", *words)
        assert code == 0, said
        found = re.findall(r"python -m ect (?:--\S+ \S+ )*(\S+)(.*)", said)
        assert len(found) > 40
        return {(verb, words.count("--gpus 1")) for verb, words in found}

    used = {"train-classifier", "train", "sample", "extract", "evaluate", "trace", "search-steps"}
    monkeypatch.setenv("ECT_FAKE_DEVICES", "2")
    (study / "overlay.yaml").write_text("evaluation: {export: [features]}\n")
    found = asking()
    assert {verb for verb, gpus in found if gpus} == used
    assert {verb for verb, gpus in found if not gpus} & used == {"evaluate"}  # but for the floor
    cluster = ["--profile", "workflow/profiles/slurm", "--set-resources", "tune:mem_mb=100"]
    assert not any(gpus for _, gpus in asking(*cluster))
    for visible, words, said in (
        ("1", (), 'gpu=Resource("gpu", 1)'),
        ("0,1", ("--forceall", "--resources", "gpu=7"), 'gpu=Resource("gpu", 7)'),
        ("", ("--forceall",), None),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        told = run(study, "results/smoke/data/dataset.safetensors", *words)[1]
        assert said in told if said else "gpu=" not in told


def test_a_second_workflow_takes_data_and_reference_from_the_cache(
    study, tmp_path_factory, monkeypatch
):
    """With equal settings; with others it makes its own. Without `--cache` nothing is printed."""
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(tmp_path_factory.mktemp("cache")))
    other = tmp_path_factory.mktemp("other")
    copy_workflow(other)
    (other / "overlay.yaml").write_text("{}")
    reference = "results/smoke/features/reference.safetensors"
    words = ["--cache", "prepare_data", "train_classifier", "extract_reference"]
    found = []
    for folder, stored in ((study, 6), (other, 0)):
        code, said = run(folder, reference, *words)
        assert code == 0 and said.count("to cache.") == stored, said
        files = sorted(path for path in (folder / "results").rglob("*") if path.is_symlink())
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert found[0] == found[1] and len(found[0]) == 6
    (other / "overlay.yaml").write_text("dataset: {held_out: 400}\n")
    code, said = run(other, reference, *words)
    assert code == 0 and said.count("to cache.") == 6
    code, said = run(study, reference)
    assert code == 0 and "Nothing to be done" in said and "cach" not in said
