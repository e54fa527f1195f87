"""The logs of runs as TensorBoard reads them back."""

import json
import sys

import pytest

from ect.cli import main
from ect.runs import curves
from ect.runtime import checkpoint
from ect.schedule import LN_S_EDGES

BINS = len(LN_S_EDGES) - 1


def lines(count, loss=1.0):
    residuals = [None, *range(1, BINS)]
    return [
        {"images": 1000 * (i + 1), "loss": loss / (i + 1), "learning_rate": 1e-3,
         "share_r_zero": 0.5, "residual_by_ln_s": residuals}
        for i in range(count)
    ]  # fmt: skip


def finished(folder, log):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def training(folder, log):
    checkpoint.save(folder.with_name(f".{folder.name}.work") / "state.safetensors", {}, lines=log)


def read(place):
    """{tag: [(step, value), ...]} of a folder of events, by TensorBoard's own reader."""
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def losses(log):
    return [(line["images"], pytest.approx(line["loss"])) for line in log]


@pytest.fixture
def root(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    return tmp_path / "results"


def test_every_number_of_a_log_is_read_back(root, capsys):
    finished(root / "pretrain" / "k12", lines(3))
    assert main.main(["tensorboard", str(root)]) == 0
    assert "3 new lines of the logs of 1 runs" in capsys.readouterr().out
    found = read(root / "tensorboard" / "pretrain" / "k12")
    assert found["loss"] == losses(lines(3))
    bins = [tag for tag in found if tag.startswith("residual_by_ln_s/")]
    assert len(bins) == BINS - 1 and f"residual_by_ln_s/{LN_S_EDGES[1]} to -4" in bins
    assert found.keys() == {"loss", "learning_rate", "share_r_zero", *bins}


def test_a_run_is_followed_from_its_saved_work_to_its_end(root):
    run, place = root / "k12", root / "tensorboard" / "k12"
    for count in (1, 1, 3):
        training(run, lines(count))
        curves.write(root)
        assert read(place)["loss"] == losses(lines(count))
    finished(run, lines(4))
    assert curves.write(root) == {"k12": 1} and curves.write(root) == {"k12": 0}
    assert read(place)["loss"] == losses(lines(4)) and len(list(place.iterdir())) == 3


def test_a_run_trained_anew_replaces_its_curves(root):
    for log in (lines(4), lines(5, loss=2.0), lines(2, loss=2.0)):
        finished(root / "k12", log)
        curves.write(root)
        assert read(root / "tensorboard" / "k12")["loss"] == losses(log)


def test_what_is_not_finite_has_no_point():
    odd = {"images": 1, "loss": float("nan"), "learning_rate": None, "share_r_zero": True, "x": [2]}
    assert curves.scalars(odd) == {"x/0": 2}


def test_without_the_package_one_line_says_how_to_install_it(root, monkeypatch, capsys):
    finished(root / "k12", lines(1))
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    assert main.main(["tensorboard", str(root)]) == 1
    line = capsys.readouterr().err.strip()
    assert "pip install 'tensorboard>=2.18'" in line and "\n" not in line


@pytest.mark.parametrize("place, said", [("none", "no such folder"), ("", "found no log of a")])
def test_a_folder_without_runs_is_refused(tmp_path, place, said, capsys):
    assert main.main(["tensorboard", str(tmp_path / place)]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("images", [[-5], [0], [500, 100], [3, 3], [2**60]], ids=str)
def test_a_log_whose_images_do_not_rise_is_named(tmp_path, images, capsys):
    finished(tmp_path / "run", [{"images": number, "loss": 1.0} for number in images])
    assert main.main(["tensorboard", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"metrics.jsonl, line {len(images)}: found {images[-1]} images after" in line
