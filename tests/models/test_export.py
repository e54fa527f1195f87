"""A model as a folder: its script draws the bits of `ect sample`, without this package."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ect
from ect import registry
from ect.cli import main
from ect.data.batches import Images
from ect.models import build, export
from ect.models.export import sample
from ect.runtime import checkpoint, record
from ect.training import train
from tests.helpers.runs import TUNE

NETWORK = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
NETWORK |= {"architecture": "ddpmpp", "embedding": "positional", "classes": 0}
ABOUT = {"process": "ve", "parameterization": "edm", "c_noise": "log_s"}


def perturbed(network, shape):
    """Weights of a network whose output is not 0."""
    torch.manual_seed(0)
    model = build.build_network(network, shape)
    weights = model.state_dict()
    return {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}


@pytest.fixture
def saved(digits_file, tmp_path):
    """Writes a model file of the digits' shape and range, with this network and description."""

    def make(network=NETWORK, **meaning):
        path = tmp_path / "run" / "model.safetensors"
        about = build.description({"network": network} | ABOUT | meaning, Images(digits_file))
        checkpoint.save(path, perturbed(network, about["shape"]), **about)
        return path

    return make


def exported(model, out):
    assert main.main(["export", str(model), "--out", str(out)]) == 0
    return out


# What the card says the script needs.
NEEDED = ("torch", "safetensors", "numpy", "pillow")
# Runs a script that can import only these packages and those that they need, or all if none is
# named, and of this one what lies beside the script, whether it is installed or not.
BARE = """
import importlib.metadata, os, re, runpy, sys
from importlib.machinery import PathFinder
script, needed, *words = sys.argv[1:]
allowed, waiting = set(), needed.split(",") if needed else []
while waiting:
    name = re.sub("[-_.]+", "-", waiting.pop().lower())
    if name not in allowed:
        allowed.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [re.match("[A-Za-z0-9._-]+", n)[0] for n in needs if "extra ==" not in n]
owners = importlib.metadata.packages_distributions().items()
blocked = {
    module for module, names in owners
    if needed and not {re.sub("[-_.]+", "-", name.lower()) for name in names} & allowed
}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "ect":
            if found := PathFinder.find_spec(name, [os.path.dirname(script)]):
                return found
            raise ModuleNotFoundError("No module named 'ect'", name=name)
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named '{name}' (blocked)", name=name)

sys.meta_path.insert(0, Blocked())
sys.argv = [script, *words]
runpy.run_path(script, run_name="__main__")
"""


def alone(folder, cwd, *words, needed=NEEDED):
    """Run the script in an isolated interpreter in the folder `cwd`, with only the packages
    `needed`; if that is None, with all."""
    script = str(folder / "sample.py")
    command = [sys.executable, "-I", "-c", BARE, script, ",".join(needed or ()), *words]
    return subprocess.run(command, cwd=cwd, env={"OMP_NUM_THREADS": "1"}, capture_output=True,
                          text=True, check=False)  # fmt: skip


def tiles(path, n, size=8):
    """The first n images (N, H, W, 1) of a picture."""
    sheet = np.asarray(Image.open(path))
    rows, columns = (side // size for side in sheet.shape)
    parts = sheet.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size, 1)
    assert not parts[n:].any()
    return parts[:n]


def same_bits(model, tmp_path, words, settings, needed=NEEDED):
    """Whether the exported script draws what the verb `sample` does."""
    folder = exported(model, tmp_path / "shared" / "model")
    moved = shutil.move(folder, tmp_path / "elsewhere")
    done = alone(moved, tmp_path, "--n", "5", "--seed", "7", "--out", "drawn.png", *words,
                 needed=needed)  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = {"images": 5, "batch": 250, "seed": 7} | settings
    out = tmp_path / "images"
    verb = ["sample", json.dumps(settings), "--model", str(model), "--out", str(out)]
    assert main.main(verb) == 0
    wanted = np.load(out / "samples.npz")["arr_0"]
    assert wanted.std() > 1
    return np.array_equal(tiles(tmp_path / "drawn.png", 5), wanted)


def test_the_package_is_out_of_the_scripts_reach(tmp_path):
    """Otherwise the tests below would prove nothing."""
    (tmp_path / "sample.py").write_text("import ect\n")
    for needed in (NEEDED, None):
        assert "No module named 'ect'" in alone(tmp_path, tmp_path, needed=needed).stderr


@pytest.mark.parametrize("name", ["pydantic", "yaml", "tqdm", "pandas", "snakemake"])
def test_so_is_every_package_that_the_card_does_not_name(name, tmp_path):
    (tmp_path / "sample.py").write_text(f"import torch, numpy, safetensors, PIL\nimport {name}\n")
    assert f"No module named '{name}' (blocked)" in alone(tmp_path, tmp_path).stderr


def test_two_steps_have_the_bits_of_the_pipeline(saved, tmp_path):
    settings = {"kind": "multistep", "options": {"times": [0.821]}}
    assert same_bits(saved(), tmp_path, ["--steps", "2"], settings)


def test_classes_and_given_times_too(saved, tmp_path):
    model = saved(NETWORK | {"architecture": "adm", "classes": 5}, process="vp_linear",
                  parameterization="noise", c_noise="ddpm", c_in="one")  # fmt: skip
    settings = {"kind": "multistep", "options": {"times": [2.0, 0.3]}}
    assert same_bits(model, tmp_path, ["--times", "2.0", "0.3"], settings)


@pytest.mark.parametrize("solver", ["heun", "dpm_solver"])
def test_a_solver_in_batches_too(saved, tmp_path, solver):
    network = NETWORK | {"architecture": "ncsnpp", "embedding": "fourier"}
    model = saved(network, process="flow", parameterization="velocity", c_noise="time")
    settings = {"kind": solver, "options": {"steps": 3}, "batch": 2}
    words = ["--sampler", solver, "--steps", "3", "--batch", "2"]
    assert same_bits(model, tmp_path, words, settings)


def test_its_script_knows_every_sampler():
    assert sample.SAMPLERS == registry.SAMPLERS


def test_a_network_of_diffusers_too(digits_file, tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    diffusers.DDPMPipeline(model, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipe")
    start = tmp_path / "model.safetensors"
    words = ["import-model", "diffusers", str(tmp_path / "pipe"), "--out", str(start)]
    assert main.main(words) == 0
    settings = {"kind": "multistep", "options": {"times": [0.821]}}
    assert same_bits(start, tmp_path, ["--steps", "2"], settings, needed=None)


def test_a_colour_picture_has_the_images_in_their_places(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    sample.save(images, tmp_path / "picture.png")
    sheet = np.asarray(Image.open(tmp_path / "picture.png"))
    assert sheet.shape == (2 * 4, 3 * 6, 3)
    for i, image in enumerate(images):
        row, column = 4 * (i // 3), 6 * (i % 3)
        assert np.array_equal(sheet[row : row + 4, column : column + 6], image)


def test_what_goes_along_is_the_pipelines_word_for_word(saved, tmp_path):
    model = saved()
    folder = exported(model, tmp_path / "out")
    assert (folder / "model.safetensors").read_bytes() == model.read_bytes()
    assert json.loads((folder / "config.json").read_text()) == checkpoint.load(model)[1]
    copies = {path.relative_to(folder / "ect") for path in (folder / "ect").rglob("*.py")}
    for name in copies - {export.Path("__init__.py")}:
        assert (folder / "ect" / name).read_bytes() == (export.ROOT / name).read_bytes()
    needed = {"process.py", "networks/unet.py", "consistency.py", "ode.py", "sampler.py"}
    assert needed <= {str(name) for name in copies} and "training/train.py" not in map(str, copies)
    first, *rest = (folder / "sample.py").read_text().splitlines()
    assert rest == (export.ROOT / "models" / "export" / "sample.py").read_text().splitlines()
    assert first.startswith("# Written by") and ect.__version__ in first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "3"], "--steps is 3; allowed: 1, 2, or times"),
        (["--times", "0.5", "1.0"], "--times: found [0.5, 1.0]; allowed: falling noise levels"),
        (["--steps", "3", "--times", "1.0"], "--steps: found 3 with 1 times"),
        (["--sampler", "heun", "--times", "1.0"], "--times: found [1.0] with heun"),
        (["--out", "new/a.png", "--labels", "3"], "config.json"),  # no model beside
        (["--out", "a.webm"], "--out: found a.webm; allowed: a name that ends in .png"),
        *(
            (["--out", f"a.{end}"], f"--out: found a.{end}; allowed: a name that ends in .png")
            for end in ("ico", "icns", "h5", "msp", "xbm", "blp", "qoi", "wmf", "gif", "pdf")
        ),
        (["--out", "a"], "--out: found a; allowed: a name that ends in .png"),
    ],
)
def test_a_mistake_of_the_scripts_user_is_one_line(monkeypatch, words, said):
    monkeypatch.setattr(sys, "argv", ["sample.py", *words])
    with pytest.raises(SystemExit) as left:
        sample.main()
    line = str(left.value)
    assert line.startswith("sample.py: ") and said in line and "\n" not in line


@pytest.mark.parametrize(
    "place, said",
    [
        (".", "found a folder; allowed: the path of a regular file"),
        ("a.png/b.png", "a.png: found a file; allowed: a folder, or a new one"),
        ("a" * 5000, "a: File name too long; allowed: a path that can be written"),
    ],
)
def test_a_place_that_takes_no_picture_is_told_at_once(tmp_path, monkeypatch, capsys, place, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    monkeypatch.setattr(sys, "argv", ["sample.py", "--out", place])
    with pytest.raises(SystemExit):
        sample.main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--out: " in line and said in line and len(line) < 400


@pytest.mark.parametrize(
    "words, said",
    [
        (["--labels", "3"], "--labels has 3; allowed: none, as the model has no classes"),
        (
            ["--n", "5000000", "--out", "a.webp"],
            "--out: found a.webp for a picture of 17896",
        ),
        (["--sampler", "flow_map"], "--sampler: found flow_map, of two-time models; allowed: mult"),
    ],
)
def test_what_the_model_cannot_draw_is_one_line(saved, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.setattr(sample, "FOLDER", exported(saved(), tmp_path / "model"))
    monkeypatch.setattr(sys, "argv", ["sample.py", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        sample.main()
    assert str(left.value).startswith(f"sample.py: {said}") and not capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_can_be_printed(saved, tmp_path, monkeypatch, encoding):
    """Also one that the terminal's encoding lacks, or that is no UTF-8."""
    model = saved()
    for name in ("Größe 東", os.fsdecode(b"\xff")):
        printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", printed)
        folder = exported(model, tmp_path / encoding / name)
        printed.seek(0)
        assert "begin with its sample.py" in printed.read() and (folder / "sample.py").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a working directory stays")
def test_a_deleted_working_directory_is_one_line(saved, tmp_path):
    folder, gone = exported(saved(), tmp_path / "model"), tmp_path / "gone"
    words = f"mkdir {gone} && cd {gone} && rmdir {gone} && {sys.executable} {folder}/sample.py"
    ended = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    said = "sample.py: the working directory was deleted; allowed: one that exists, after `cd`\n"
    assert (ended.returncode, ended.stderr) == (1, said)


@pytest.mark.parametrize("lost", ["ect", "ect/sampler.py"])
def test_a_folder_without_all_of_its_code_is_one_line(saved, tmp_path, lost):
    folder = exported(saved(), tmp_path / "model")
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ended = alone(folder, tmp_path)
    assert ended.stderr.startswith("sample.py: ") and ended.stderr.count("\n") == 1
    assert "allowed: what README.md names, and all of ect/ beside it" in ended.stderr


def test_only_a_model_is_exported_and_nothing_is_overwritten(saved, tmp_path, capsys):
    model, out = saved(), tmp_path / "out"
    other = tmp_path / "state.safetensors"
    checkpoint.save(other, checkpoint.load(model)[0], seen=3)
    assert main.main(["export", str(other), "--out", str(out)]) == 1
    said = capsys.readouterr().err.strip()
    assert f"{other} holds no 'network'; allowed: a model" in said and "\n" not in said
    assert not out.exists()
    out.mkdir()
    exported(model, out)  # an empty folder is as good as none
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main.main(["export", str(model), "--out", str(out)]) == 1
    assert f"{out}: found a file or a non-empty folder; allowed: a new" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out", "state.safetensors"}


def front_matter(card):
    """The card's YAML header."""
    return yaml.safe_load(card.split("---")[1])


def test_the_card_says_how_the_model_was_trained(digits_file, tmp_path):
    settings = TUNE | {"network": NETWORK}
    train.run(settings, digits_file, tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    card = (exported(model, tmp_path / "out") / "README.md").read_text()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    count = sum(w.numel() for w in build.load_model(model)[0].network.parameters())
    header = front_matter(card)
    assert header["license"] == "apache-2.0" and "consistency-models" in header["tags"]
    assert f"{count:,} parameters" in card and "`ve`" in card and "`edm`" in card
    assert f"Images seen: {1000 * settings['last_kimg']:,}\n" in card
    assert f"Seed: {settings['seed']}\n" in card and str(record["code"]["commit"]) in card
    assert json.loads(card.split("```json")[1].split("```")[0]) == record["settings"]
    assert "2406.14548" in card and "# A consistency model" in card


RECORD = {
    "settings": TUNE | {"network": NETWORK}, "inputs": {}, "code": {}, "packages": {},
    "device": "cpu", "outputs": {"model.safetensors": "OWN"},
}  # fmt: skip


def test_a_record_of_the_same_model_is_told(saved, tmp_path):
    model = saved()
    text = json.dumps(RECORD).replace("OWN", record.digest(model))
    (model.parent / "run.json").write_text(text)
    card = (exported(model, tmp_path / "out") / "README.md").read_text()
    assert front_matter(card)["license"] == "apache-2.0" and "Seed: 0" in card


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"images": 3}}, {"settings": {"recipe": {}}}, {"outputs": {}},
        {"settings": TUNE | {"schedule": "zero"}}, {"settings": TUNE | {"last_kimg": "many"}},
        {"code": None}, {"packages": []}, {"device": 3},
    ],
)  # fmt: skip
def test_a_card_without_a_record_claims_nothing(saved, tmp_path, change):
    """Nor with that of another model, or one that is none."""
    model = saved()
    text = json.dumps(RECORD | change).replace("OWN", record.digest(model))
    (model.parent / "run.json").write_text(text)
    card = (exported(model, tmp_path / "out") / "README.md").read_text()
    assert front_matter(card)["license"] == "unknown" and "No record of its training" in card
    assert "Images seen" not in card


@pytest.mark.parametrize(
    "change, words",
    [
        ({"settings": None}, "'settings' is null; allowed: an object"),
        ({"outputs": {"model.safetensors": "0" * 64}}, "found other bytes than its job wrote"),
        ({"outputs": ["OWN"]}, "allowed: an object"),
        ({"inputs": 3}, "'inputs' is 3; allowed: an object"),
    ],
)
def test_a_record_that_cannot_be_of_the_model_is_refused(saved, tmp_path, capsys, change, words):
    model = saved()
    (model.parent / "run.json").write_text(json.dumps(RECORD | change))
    assert main.main(["export", str(model), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (tmp_path / "out").exists()
