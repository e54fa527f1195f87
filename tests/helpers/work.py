"""The run whose work in progress is stopped, killed and damaged, and what it leaves undisturbed."""

import json
from pathlib import Path

import pytest

from ect.cli.main import main
from ect.runtime import checkpoint
from ect.training import loop, train
from tests.helpers.runs import TUNE, changed, contents

# Ten steps, three lines of the log: most steps end within a line.
RUN = changed(TUNE, recipe__dropout=0.1, snapshots=3)


@pytest.fixture
def few_lines(monkeypatch):
    """A log of three lines, so that most steps end within one."""
    monkeypatch.setattr(loop, "LOG_LINES", 3)


@pytest.fixture(scope="module")
def undisturbed(digits_file, tmp_path_factory):
    """The artefacts of `RUN` when nothing stops it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_LINES", 3)
        train.run(RUN, digits_file, out)
    return contents(out)


@pytest.fixture
def words(digits_file, tmp_path):
    """The command that trains `RUN`."""
    out = str(tmp_path / "run")
    return ["train", json.dumps(RUN), "--data", str(digits_file), "--out", out]


def stopped_at(words, image):
    while main([*words, "--max-minutes", "0"]) == 75:
        state = checkpoint.load(Path(words[-1]).parent / ".run.work" / "state.safetensors")
        if state[1]["seen"] == image:
            return
