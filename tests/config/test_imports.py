"""What a plugin imports and no environment, or this one, has is told by the plan."""

from pathlib import Path

import pytest
import yaml

from ect import plugins
from ect.cli.main import main
from ect.config.config import Config
from ect.config.missing import missing, require
from tests.helpers.configs import changed

PART = """from ect.plugins import schedule


@schedule
def half(t, progress):
    return t / 2
"""
INSIDE = "    return t / 2"
LACKING = {
    "a package": ("import nosuch\n", "nosuch"),
    "one of several": ("import math, nosuch.part as x\n", "nosuch.part"),
    "from a package": ("from nosuch.a import b\n", "nosuch.a"),
    "a module of ect": ("from ect.nosuch import b\n", "ect.nosuch"),
    "a module of a file of ect": ("import ect.schedule.x\n", "ect.schedule.x"),
}
GOOD = {
    "none": "",
    "known": "import math, os.path\nfrom torch.nn import functional\nimport ect.networks.unet\n",
    "beside it": "import helper\n",
    "tried": "try:\n    import nosuch\nexcept ImportError:\n    nosuch = None\n",
    "in a case": "if False:\n    import nosuch\n",
    "never called": "def other():\n    import nosuch\n",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("helper.py").write_text("")


def study(text):
    Path("p.py").write_text(text)
    return Config.read(changed("plugins", ["p.py"]))


@pytest.mark.parametrize("text, name", LACKING.values(), ids=LACKING)
@pytest.mark.parametrize("inside", [False, True])
def test_a_package_that_is_not_there_is_listed_and_stops_a_run(text, name, inside):
    lines = PART.replace(INSIDE, f"    {text}{INSIDE}") if inside else text + PART
    config = study(lines)
    (one,) = missing(config)
    assert (one.key, one.path, one.package) == ("plugins", name, True)
    with pytest.raises(
        ValueError, match=rf"^plugins: found no '{name}'; to be installed: p\.py, l"
    ):
        require(config)
    require(config, packages=False)


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_is_there_or_may_be_left_out_is_not(text):
    assert missing(study(text + PART)) == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("from . import helper\n", "line 1: from . import helper; allowed: imports by whole"),
        ("from ect.plugins import nosuch\n", "line 1: imports nosuch; allowed: schedule, obj"),
    ],
)
def test_an_import_that_fails_everywhere_is_refused(text, words):
    Path("p.py").write_text(text + PART)
    with pytest.raises(ValueError) as caught:
        plugins.read(["p.py"])
    assert words in str(caught.value)


def test_the_plan_says_it(capsys):
    Path("p.py").write_text("import nosuch\n" + PART)
    Path("config.yaml").write_text(yaml.safe_dump(changed("plugins", ["p.py"])))
    assert main(["plan"]) == 0
    wanted = "plugins: found no 'nosuch'; to be installed: p.py, line 1, imports it, size unknown"
    assert wanted in capsys.readouterr().out.splitlines()
