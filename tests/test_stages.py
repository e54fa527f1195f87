"""Versions of stages match the code: after a change a version is raised, or the change accepted."""

import ast

import pytest

from ect.runtime.versions import STAGES
from tests import stages


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_of_a_stage_is_what_its_version_stands_for(stage):
    assert stages.found()[stage] == stages.accepted()[stage], (
        f"the code that the jobs of '{stage}' run has changed: if the change can change results,"
        f" raise STAGES['{stage}'] in ect/runtime/versions.py; then `python -m tests.stages"
        " --accept`"
    )


def test_the_kernels_are_what_their_version_stands_for():
    assert stages.found()["native"] == stages.accepted()["native"], (
        "ect/networks/kernels has changed: if the change can change results, raise NATIVE in"
        " ect/runtime/versions.py; then `python -m tests.stages --accept`"
    )


def test_comments_of_kernels_do_not_count(tmp_path):
    """Comments and spaces change no digest, a digit does."""
    found = []
    for text in ("int a = 1;", "/* why\n so */ int  a = 1;\n", "int a = 2;"):
        (tmp_path / "a.c").write_text(text)
        found.append(stages.kernels(tmp_path))
    assert found[0] == found[1] != found[2]


def test_every_stage_has_a_start_and_a_digest():
    assert list(stages.STARTS) == list(STAGES)
    assert stages.accepted().keys() == STAGES.keys() | {"native"}


def test_a_stage_is_what_it_runs_and_nothing_else():
    """Training reaches the network, no table; a module's statements are its definitions."""
    module = stages.reader(stages.ROOT)
    reached = {stage: stages.closure(module, s) for stage, s in stages.STARTS.items()}
    modules = {stage: {name for name, _ in found} for stage, found in reached.items()}
    unet, state = ("networks.unet", "UNet"), ("training.state", "State")
    assert {unet, state, ("schedule", "ict")} <= reached["train"]
    assert ("sampler", "heun") in reached["sample"] and (
        "evaluation.metrics",
        "kernel",
    ) not in reached["train"]
    wings = {name.split(".")[0] for name in set().union(*modules.values())}
    assert "study" not in wings and "runtime.progress" not in set().union(*modules.values())
    for stage in set(STAGES) - {"report"}:
        assert not any(name.startswith("report") for name in modules[stage])
    bare = [
        name
        for name in set().union(*modules.values())
        for node in module(name).tree.body[1:]
        if isinstance(node, ast.Expr)
    ]
    assert bare == []  # they would be in no digest


SOURCE = '''"""A file."""
import math

from ect import other

WIDTH = 3


def start(x):
    """What it does, é."""
    # why
    return _scaled(x) + other.shift(x), f"é {x:>{WIDTH}} {{}} {'a'}"


@other.mark(1)
def _scaled(x):
    return math.sqrt(x) * WIDTH


def beside(x):
    return x
'''
OTHER = "def shift(x):\n    return x + 1\n\n\ndef mark(n):\n    return lambda f: f\n\nUNUSED = 1\n"


@pytest.fixture
def digest_of(tmp_path):
    def digest(source=SOURCE, other=OTHER):
        (tmp_path / "one.py").write_text(source, encoding="utf-8")
        (tmp_path / "other.py").write_text(other, encoding="utf-8")
        return stages.digest(stages.reader(tmp_path), [("one", "start")])

    return digest


@pytest.mark.parametrize(
    "before, after",
    [
        ("# why", "# another reason"),
        ('    """What it does, é."""\n', ""),
        ("_scaled(x) + other", "_scaled(\n        x\n    ) + other"),
        ("return x\n", "return x + 1\n"),
        ("WIDTH = 3", "WIDTH  =  3  # wide"),
    ],
)
def test_what_changes_no_result_changes_no_digest(before, after, digest_of):
    assert before in SOURCE
    assert digest_of(SOURCE.replace(before, after)) == digest_of()
    assert digest_of(other=OTHER.replace("UNUSED = 1", "UNUSED = 2")) == digest_of()


def test_a_definition_may_move(tmp_path, digest_of):
    before = digest_of()
    moved = SOURCE.replace("from ect import other", "from ect.inner import place")
    moved = moved.replace(
        "from ect.inner import place",
        "from ect.inner import place\nfrom ect.inner.shifts import shift",
    )
    moved = moved.replace("other.shift", "shift").replace("other.mark", "place.mark")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "place.py").write_text(OTHER.partition("\n\n\n")[2])
    (tmp_path / "inner" / "shifts.py").write_text(OTHER.partition("\n\n\n")[0] + "\n")
    assert digest_of(moved) == before
    (tmp_path / "inner" / "shifts.py").write_text("def shift(x):\n    return x\n")
    assert digest_of(moved) != before


@pytest.mark.parametrize(
    "before, after",
    [
        ("WIDTH = 3", "WIDTH = 4"),
        ("(x) + other", "(x) - other"),
        ("math.sqrt(x) * WIDTH", "math.sqrt(x)"),
        ("mark(1)", "mark(2)"),
        ('f"é {x', 'f"e {x'),
        ("{{}}", "{{ }}"),
        ("return _scaled", "_scaled"),
    ],
)
def test_what_can_change_a_result_changes_the_digest(before, after, digest_of):
    assert before in SOURCE
    assert digest_of(SOURCE.replace(before, after)) != digest_of()
    for name in ("x + 1", "lambda f: f"):
        assert digest_of(other=OTHER.replace(name, "None")) != digest_of()


def test_a_name_that_is_not_there_is_told(tmp_path):
    (tmp_path / "one.py").write_text("from ect import other\n\n\ndef f():\n    other.gone()\n")
    (tmp_path / "other.py").write_text("")
    with pytest.raises(ValueError, match="ect/other has no 'gone'"):
        stages.closure(stages.reader(tmp_path), [("one", "f")])
