"""A model file runs no file of this machine that its user did not name, and none that declares
nothing."""

import copy
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

import ect
from ect import plugins
from ect.cli import main
from ect.data.batches import Images
from ect.models import build, trust
from ect.runtime import checkpoint
from ect.training import parts
from tests.models.test_about import ABOUT, NETWORK

PROCESS = """
from pathlib import Path
from ect.plugins import process
from ect.process import VE

Path("ran").touch()

@process
class Own(VE):
    pass
"""
SETTINGS = {"kind": "multistep", "options": {}, "images": 2, "batch": 2, "seed": 0}
NOT_NAMED = "a file that was not named and so is not run; allowed: that file in the config's"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with a plugin; nothing is allowed and nothing has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(trust.VARIABLE, "")
    plugins._run.cache_clear()
    Path("own.py").write_text(PROCESS)
    return tmp_path


def model(file="own.py", text=None, path="model.safetensors", **changes):
    """A model file that wants a plugin."""
    digest = hashlib.sha256((text or Path(file).read_text()).encode()).hexdigest()
    torch.manual_seed(0)
    weights = build.build_network(NETWORK, (1, 8, 8)).state_dict()
    about = ABOUT | {"process": "Own", "plugins": {file: digest}} | changes
    checkpoint.save(path, weights, **about)
    return path


def sampled(*words):
    words = ["sample", json.dumps(SETTINGS), "--model", "model.safetensors", *words]
    return main.main([*words, "--out", "out"])


def test_a_model_of_a_plugin_is_copied_and_not_pickled(here):
    found = ect.load(model(), plugins=["own.py"])
    assert type(copy.deepcopy(found).process) is type(copy.copy(found).process)
    with pytest.raises(TypeError, match=r"^model: found a process of own\.py; allowed: one of"):
        pickle.dumps(found)


def test_a_file_that_nobody_named_is_not_run(here, capsys, digits_file):
    path = model()
    with pytest.raises(ValueError, match=r"'own\.py' \(sha256 \w{12}\), " + NOT_NAMED):
        ect.load(path)
    with pytest.raises(ValueError, match=NOT_NAMED):
        ect.load(path, plugins=[])
    assert sampled() == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("ect sample: plugins: the model's") and NOT_NAMED in line
    assert "--plugins" in line and len(line.splitlines()) == 1
    model(shape=[1, 8, 8], **{k: getattr(Images(digits_file), k) for k in ("shift", "scale")})
    for settings in ({}, {"plugins": {}}):
        with pytest.raises(ValueError, match=NOT_NAMED):
            parts.settings_with_start(settings, path, Images(digits_file))
    assert not Path("ran").exists() and not Path("out").exists()


def test_the_users_own_word_is_enough(here):
    path = model()
    ways = {
        "load": lambda: ect.load(path, plugins=["own.py"]).sample(2),
        "a path": lambda: ect.load(path, plugins=[here / "own.py"]),
        "a verb": lambda: sampled("--plugins", "./own.py"),
        "settings": lambda: build.load_model(path, {"own.py": "x"}),
    }
    for name, way in ways.items():
        plugins._run.cache_clear()
        Path("ran").unlink(missing_ok=True)
        assert way() is not None and Path("ran").exists(), name
        with pytest.raises(ValueError, match=NOT_NAMED):  # it holds for that call alone
            ect.load(path)
    trust.allow(["other.py", "own.py"])  # as the Snakefile does for the config's
    assert ect.load(path).sample(2).shape == (2, 8, 8, 1)
    assert os.environ[trust.VARIABLE].splitlines() == ["other.py", "own.py"]


def test_a_file_of_the_same_bytes_elsewhere_will_do(here):
    path = model()
    Path("parts").mkdir()
    Path("own.py").rename("parts/mine.py")
    with pytest.raises(ValueError, match=NOT_NAMED):
        ect.load(path)
    assert ect.load(path, plugins=["parts/mine.py"]).sample(1).shape == (1, 8, 8, 1)
    Path("parts/mine.py").write_text(PROCESS + "# edited\n")
    with pytest.raises(ValueError, match=NOT_NAMED):
        ect.load(path, plugins=["parts/mine.py"])
    with pytest.raises(ValueError, match=r"none\.py: No such file"):
        ect.load(path, plugins=["none.py"])


RAN = "from pathlib import Path\nPath('ran').touch()\n"
DECLARATIONS = {
    "nothing": (RAN, "found no part"),
    "another kind": (
        RAN + "from ect.plugins import weight\n@weight\ndef Own(s, r, sd): return s\n",
        "process: found 'Own', which no listed plugin declares",
    ),
    "another name": (
        RAN + PROCESS.replace("class Own", "class Other"),
        "no listed plugin declares",
    ),
    "a bare class": (RAN + PROCESS.replace("@process", ""), "found no part"),
    "no Python": (RAN + "def (:", "allowed: a Python file"),
}


@pytest.mark.parametrize(("text", "said"), DECLARATIONS.values(), ids=DECLARATIONS)
def test_a_file_that_does_not_declare_the_process_is_not_run(here, text, said):
    Path("own.py").write_text(text)
    with pytest.raises(ValueError, match=said) as line:
        ect.load(model(), plugins=["own.py"])
    assert not Path("ran").exists() and len(str(line.value).splitlines()) == 1


def test_a_file_that_was_edited_is_not_run(here):
    path = model()
    Path("own.py").write_text(PROCESS + "# edited\n")
    with pytest.raises(ValueError, match=r"own\.py: edited since"):
        ect.load(path, plugins=["own.py"])
    assert not Path("ran").exists()


@pytest.mark.parametrize("given", ["own.py", Path("own.py")])
def test_plugins_are_a_list(here, given):
    with pytest.raises(ValueError, match=r"plugins: found 'own\.py'; allowed: a list"):
        ect.load(model(), plugins=given)


def test_a_name_with_control_characters_is_escaped(here):
    with pytest.raises(ValueError, match=NOT_NAMED) as line:
        ect.load(model("\x1b[2J\nown.py", text="x"))
    assert str(line.value).isprintable()


def test_a_description_is_made_without_running_a_plugin(here, digits_file):
    digest = hashlib.sha256(PROCESS.encode()).hexdigest()
    settings = {"process": "Own", "plugins": {"own.py": digest}}
    assert plugins.providing("process", "Own", settings) == {"plugins": {"own.py": digest}}
    assert not Path("ran").exists()
