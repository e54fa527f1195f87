"""Several processes are one: the same losses and weights, stopped together, refused together."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from ect.evaluation import classifier, evaluate, sample
from ect.runtime import checkpoint, device, distributed, stop, work
from ect.training import loop, train
from tests.helpers.processes import trained
from tests.helpers.runs import PRETRAIN, TUNE, changed, contents

# Batches of 63 images, the last of 55: not divisible. With dropout.
RUN = changed(TUNE, recipe__batch=63)


@pytest.fixture(scope="module")
def alone(digits_file, tmp_path_factory):
    """The folder of `RUN` in one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "current", lambda: torch.device("cpu"))
        torch.set_default_dtype(torch.float64)
        train.run(RUN, digits_file, out)
        torch.set_default_dtype(torch.float32)
    return out


@pytest.mark.parametrize("world, microbatch", [(2, 64), (4, 10)])
def test_several_processes_train_as_one(world, microbatch, alone, digits_file, tmp_path):
    settings = changed(RUN, recipe__microbatch=microbatch)
    assert trained(world, settings, digits_file, tmp_path / "run") == [0] * world
    found, wanted = (
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (tmp_path / "run", alone)
    )
    assert len(found) == len(wanted) == 16
    for one, two in zip(found, wanted):
        assert one.keys() == two.keys()
        for key, value in one.items():
            values, others = (v if isinstance(v, list) else [v] for v in (value, two[key]))
            assert [v is None for v in values] == [v is None for v in others]  # empty bins
            values, others = ([v for v in whole if v is not None] for whole in (values, others))
            assert values == pytest.approx(others, rel=1e-10, abs=0), key
    for name in ("model.safetensors", "snapshots.safetensors"):
        weights, others = (checkpoint.load(out / name)[0] for out in (tmp_path / "run", alone))
        for key, value in weights.items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(value, others[key], rtol=1e-8, atol=1e-10)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["processes"] == world
    assert "processes" not in json.loads((alone / "run.json").read_text())
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


@pytest.mark.parametrize("batch, smallest", [(999, 1), (64, 40), (100, 100), (2000, 1000)])
def test_a_batch_has_an_image_for_each_process(batch, smallest, monkeypatch):
    """The smallest may be the last; one image fewer than processes is refused."""
    assert train._smallest_batch(changed(RUN, recipe__batch=batch)) == smallest
    monkeypatch.setattr(distributed, "world", lambda: smallest)
    distributed.require_shares(smallest)
    monkeypatch.setattr(distributed, "world", lambda: smallest + 1)
    with pytest.raises(ValueError, match=f"has {smallest} images; allowed: {smallest + 1} or more"):
        distributed.require_shares(smallest)


@pytest.mark.parametrize("size", [4, 7, 64])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_slices_are_the_batch(size, world, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: world)
    slices = [distributed._slice(rank, size) for rank in range(world)]
    assert [i for share in slices for i in range(size)[share]] == list(range(size))
    assert max(s.stop - s.start for s in slices) == -(-size // world)


def test_alone_nothing_is_changed():
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([1.0, 2.0])
    distributed.sum_gradients([weight])
    terms = [torch.ones(5)]
    assert weight.grad.tolist() == [1.0, 2.0] and distributed.all_gather(terms, 5) is terms
    assert distributed.slice_of(5) == slice(0, 5) and distributed.all_max(3, 4) == (3, 4)


def draw(settings, model, folder):
    """Images of a model, in the precision of its weights."""
    torch.set_default_dtype(torch.float32)
    sample.run(settings, model, folder)


def stream(settings, model, folder):
    """Features of a model's images."""
    torch.set_default_dtype(torch.float32)
    given = {"features": {"extractor": "classifier"}, "sampling": settings}
    weights = model.parent / "classifier.safetensors"
    evaluate.extract(given, folder / "features.safetensors", model=model, classifier=weights)


@pytest.mark.parametrize("world, images", [(2, 35), (3, 5)])
def test_several_processes_draw_the_bytes_of_one(world, images, digits_file, tmp_path):
    """With a last batch that is smaller, and with fewer batches than processes."""
    train.run(changed(PRETRAIN, last_kimg=0), digits_file, tmp_path)
    options = {"channels": 4, "epochs": 1, "batch": 99, "lr": 1e-3}
    classifier.run(options, digits_file, tmp_path)
    settings = {"kind": "multistep", "options": {"times": [0.8]}, "images": images, "batch": 10}
    settings |= {"seed": 3}
    for task in (draw, stream):
        given = settings, tmp_path / "model.safetensors"
        task(*given, tmp_path / "one")
        assert trained(world, *given, tmp_path / "all", task) == [0] * world
    for name in ("samples.npz", "features.safetensors"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    for name in ("run.json", "features.json"):
        told = (json.loads((tmp_path / way / name).read_text()) for way in ("all", "one"))
        assert [record.get("processes") for record in told] == [world, None]


def stopped_in_the_second(settings, data, out):
    """Train; only the second process gets a SIGTERM, at its third step."""
    step, steps = loop.step, itertools.count(1)

    def signalled(*given):
        if not distributed.is_first() and next(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)

    loop.step = signalled
    try:
        train.run(settings, data, out)
    except stop.Stopped as end:
        out.with_suffix(".txt").write_text(f"{end.code}: {end}")
        raise SystemExit(end.code) from None


def test_a_signal_to_one_process_stops_all_and_the_first_names_it(digits_file, tmp_path):
    out = tmp_path / "run"
    assert trained(2, RUN, digits_file, out, stopped_in_the_second) == [143, 143]
    said = out.with_suffix(".txt").read_text()
    assert said == "143: stopped by SIGTERM at image 189 of 1000; run again to go on"
    assert (work.work_folder(out) / "state.safetensors").exists()


def torchrun(data, out, *words, **more):
    """Start a training run of two processes, with dropout."""
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    little = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    settings = json.dumps(changed(PRETRAIN, network=little, recipe__batch=10, last_kimg=2))
    command = [sys.executable, "-m", "ect", "--threads", "1", "train", settings]
    command += ["--data", str(data), "--out", str(out), "--gpus", "2", *words]
    return subprocess.Popen(
        command, env=os.environ | path | more, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def whole(digits_file, tmp_path_factory):
    """What such a run leaves if nothing disturbs it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run = torchrun(digits_file, out)
    said = run.communicate()[1]
    assert run.returncode == 0, said
    return contents(out)


@pytest.mark.pipeline  # takes as long as one
def test_torchrun_stops_as_one_and_goes_on(whole, digits_file, tmp_path):
    """SIGTERM to torchrun: all save and stop; again, and the bits are those of an undisturbed
    run."""
    first = torchrun(digits_file, tmp_path / "run")
    while not (tmp_path / "run" / "progress.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGTERM)
    said = first.communicate()[1]
    found = re.findall(r"ect train: stopped by SIGTERM at image (\d+) of 2000; run again", said)
    assert first.returncode != 0 and len(found) == 1
    again = torchrun(digits_file, tmp_path / "run")
    said = again.communicate()[1]
    assert again.returncode == 0 and said.count(f"going on from image {found[0]} of") == 1
    assert contents(tmp_path / "run") == whole


SRUN = """#!/bin/sh
# Stands in for srun: the command once for each of two nodes, which are this machine.
shift 5
"$@" & first=$!
"$@" & second=$!
wait $first && wait $second
"""


@pytest.mark.pipeline  # takes as long as one
def test_two_nodes_of_one_process_are_one_of_two(whole, digits_file, tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURMD_NODENAME": "127.0.0.1"}
    slurm |= {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    run = torchrun(digits_file, tmp_path / "run", "--nodes", "2", **slurm)
    said = run.communicate(timeout=200)[1]
    assert run.returncode == 0, said
    assert contents(tmp_path / "run") == whole
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["processes"] == 2
