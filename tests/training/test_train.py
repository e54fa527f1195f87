"""The loop: the same bits each time, after a stop, and along a chain of milestones."""

import json

import pytest
import torch

from ect import registry
from ect.cli.main import main
from ect.data import file
from ect.data.batches import Images
from ect.models import build, draw
from ect.runtime import checkpoint, device
from ect.runtime.versions import MASKS, STAGES
from ect.training import loop, parts, train
from ect.training.state import State
from tests.helpers.runs import ARTEFACTS, PRETRAIN, TUNE, changed, contents

# Processors without bf16 are slow at it.
LITTLE = {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []}


@pytest.fixture(scope="module")
def ran(digits_file, tmp_path_factory):
    """The folder of a run of settings that several tests read: each is run once."""
    folders = {}

    def run(settings):
        key = json.dumps(settings)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("ran") / "run"
            train.run(settings, digits_file, folders[key])
        return folders[key]

    return run


@pytest.mark.parametrize(
    "settings",
    [PRETRAIN, TUNE, changed(TUNE, network=LITTLE, recipe__precision="bf16")],
    ids=["pretrain", "tune", "bf16"],
)
def test_a_run_is_its_config_and_seed(settings, digits_file, tmp_path):
    torch.manual_seed(1)
    train.run(settings, digits_file, tmp_path / "a")
    torch.manual_seed(2)
    train.run(settings, digits_file, tmp_path / "b")
    train.run(changed(settings, seed=1), digits_file, tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


EDM2 = changed(
    PRETRAIN,
    network=PRETRAIN["network"] | {"architecture": "edm2", "uncertainty": True},
    recipe__ema_std=[0.05, 0.1],
    recipe__optimizer__decay="inverse_sqrt",
    recipe__optimizer__decay_kimg=0.4,
)
CHAINS = {name: changed(PRETRAIN, recipe__optimizer__name=name) for name in ("adam", "radam")}


@pytest.mark.parametrize("settings", [*CHAINS.values(), EDM2], ids=[*CHAINS, "edm2"])
def test_a_chain_of_milestones_is_one_run(settings, digits_file, tmp_path):
    """k0 -> k1 -> k2 has the bits of k0 -> k2, since 100 divides 1,000."""
    previous = None
    for kimg in (0, 1, 2):
        step = changed(settings, first_kimg=max(kimg - 1, 0), last_kimg=kimg)
        train.run(step, digits_file, tmp_path / f"k{kimg}", resume=previous)
        previous = tmp_path / f"k{kimg}" / "state.safetensors"
    train.run(changed(settings, last_kimg=2), digits_file, tmp_path / "once")
    names = ("model.safetensors", "state.safetensors")
    assert contents(tmp_path / "k2", names) == contents(tmp_path / "once", names)
    assert contents(tmp_path / "k1", names) != contents(tmp_path / "k2", names)


@pytest.fixture(scope="module")
def undisturbed(digits_file, tmp_path_factory):
    """The artefacts of runs that nothing stopped, by optimizer."""
    found = {}
    for name in ("adam", "radam"):
        out = tmp_path_factory.mktemp(name)
        train.run(changed(TUNE, recipe__optimizer__name=name), digits_file, out)
        found[name] = contents(out)
    return found


@pytest.mark.parametrize("optimizer", ["adam", "radam"])
@pytest.mark.parametrize("steps", [1, 4, 5, 10])
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(
    optimizer, steps, undisturbed, digits_file, tmp_path, monkeypatch
):
    """Stopped after 1 to 10 of its 10 steps; at steps 5 and 10 a snapshot is due."""
    settings = changed(TUNE, recipe__optimizer__name=optimizer)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        taken, step, publish = [], loop.step, train.publish

        def stop(whole):
            def stopping(*args):
                if len(taken) == steps:
                    raise KeyboardInterrupt
                taken.append(1)
                return whole(*args)

            return stopping

        patch.setattr(loop, "step", stop(step))
        patch.setattr(train, "publish", stop(publish))
        with pytest.raises(KeyboardInterrupt):
            train.run(settings, digits_file, out, save_seconds=-1.0)
    assert not (out / "model.safetensors").exists()

    again, step = [], loop.step
    monkeypatch.setattr(loop, "step", lambda *args: again.append(1) or step(*args))
    train.run(settings, digits_file, out)
    assert len(again) == 10 - steps
    found = contents(out)
    assert [name for name in ARTEFACTS if found[name] != undisturbed[optimizer][name]] == []
    assert {p.name for p in out.iterdir()} == {*ARTEFACTS, "run.json", "progress.json"}
    assert list(tmp_path.iterdir()) == [out]


def test_work_of_other_settings_is_not_continued(digits_file, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(train, "publish", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.run(PRETRAIN, digits_file, tmp_path / "a", save_seconds=-1.0)
    other = changed(PRETRAIN, seed=5)
    train.run(other, digits_file, tmp_path / "a")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "other settings, inputs or code: discarded" in said[0]
    train.run(other, digits_file, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [(0, 0.0), (500, 0.5), (1000, 1.0), (2000, 1.0), (3000, 1.0), (4000, 0.6), (4999, 0.2004)],
)
def test_learning_rate_warms_up_stays_and_falls(seen, wanted):
    options = {"lr": 2.0, "warmup_kimg": 1.0, "decay_from": 0.6, "lr_final": 0.2}
    assert parts.learning_rate(options, seen, 5000) == pytest.approx(2 * wanted)


@pytest.mark.parametrize("seen", [0, 1, 4999])
def test_learning_rate_is_constant_by_default(seen):
    options = {"lr": 2.0, "warmup_kimg": 0.0, "decay_from": 1.0, "lr_final": 0.0}
    assert parts.learning_rate(options, seen, 5000) == 2.0


def test_init_copies_weights_and_nothing_else(ran, digits_file, tmp_path):
    model = ran(PRETRAIN) / "model.safetensors"
    train.run(changed(TUNE, last_kimg=0, seed=3), digits_file, tmp_path / "tuned", init=model)
    weights, _ = checkpoint.load(model)
    tuned, _ = checkpoint.load(tmp_path / "tuned" / "model.safetensors")
    state, about = checkpoint.load(tmp_path / "tuned" / "state.safetensors")
    assert all(torch.equal(tuned[key], value) for key, value in weights.items())
    assert checkpoint.within("optimizer", state) == {} and about["seen"] == 0
    network = checkpoint.within("network", state)
    assert all(torch.equal(network[key], value) for key, value in weights.items())


def test_training_reduces_the_loss(digits_file, tmp_path):
    train.run(changed(PRETRAIN, last_kimg=6), digits_file, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert lines[-1]["images"] == 6000 and len(lines) == loop.LOG_LINES
    assert all(line["share_r_zero"] == 1 for line in lines)


def test_a_loss_that_is_no_number_publishes_nothing(digits_file, tmp_path):
    with pytest.raises(FloatingPointError, match=r"optimizer\.lr"):
        train.run(changed(PRETRAIN, recipe__optimizer__lr=1e30), digits_file, tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {".run.work", "run"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["progress.json"]


def test_snapshots_and_model_describe_themselves(ran):
    """The last snapshot is the published model, and both load as a consistency function."""
    folder = ran(TUNE)
    snapshots, about = checkpoint.load(folder / "snapshots.safetensors")
    model, model_about = checkpoint.load(folder / "model.safetensors")
    assert about == model_about
    assert {key.split(".")[0] for key in snapshots} == {"500", "1000"}
    last = checkpoint.within("1000", snapshots)
    assert all(torch.equal(last[key], value) for key, value in model.items())
    f, process, _ = build.load_model(folder / "model.safetensors")
    t = process.time(torch.tensor([0.5]))
    assert f(torch.zeros(1, 1, 8, 8), t).isfinite().all()


def test_distillation_asks_the_frozen_start(ran, digits_file, tmp_path):
    """Every target gives another model; the start, which is the teacher, is not trained."""
    init = ran(PRETRAIN) / "model.safetensors"
    before = init.read_bytes()
    for target in ("own", "euler", "heun"):
        settings = changed(TUNE, target=target, recipe__dropout=0.0)
        train.run(settings, digits_file, tmp_path / target, init=init)
    models = {
        t: (tmp_path / t / "model.safetensors").read_bytes() for t in ("own", "euler", "heun")
    }
    assert len(set(models.values())) == 3 and init.read_bytes() == before


@pytest.mark.parametrize("name", ["ct", "ict"])
def test_consistency_training_runs_on_its_grid(name, digits_file, tmp_path):
    options = {k: default for k, (_, default) in registry.schedule_options(name).items()}
    schedule = {"map": name, "options": options, "clock": "noise"}
    settings = changed(TUNE, schedule=schedule, recipe__prior={"kind": "karras", "options": {}})
    train.run(settings, digits_file, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["share_r_zero"] == 0 for line in lines) and lines[-1]["loss"] > 0


@pytest.mark.parametrize("settings", [PRETRAIN, TUNE], ids=["pretrain", "tune"])
def test_a_step_does_not_wait_for_a_gpu(settings, digits_file):
    """CUDA itself raises if it does; the first steps may wait to allocate and compile."""
    if device.current().type != "cuda":
        pytest.skip("needs --device cuda")
    images = Images(digits_file)
    state, about = State(settings, images), build.description(settings, images)
    objective = parts.make_objective(settings, images.sd)
    f = build.make_consistency(state.network, objective.process, about)
    for mode in ("default", "default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            loop.step(state, settings, images, objective, f, 1000)
        finally:
            torch.cuda.set_sync_debug_mode("default")


CONDITIONAL = changed(PRETRAIN, network__classes=10, recipe__dropout=0.0)


def test_a_network_with_classes_is_told_the_labels(ran):
    """Trained on labels, f depends on them; a uniform or given label is a function of the seed."""
    f, _, about = build.load_model(ran(CONDITIONAL) / "model.safetensors")
    assert about["network"]["classes"] == 10
    weight = f.network.embedding.label.weight
    start = build.make_network(CONDITIONAL["network"], about["shape"])
    assert (weight - start.embedding.label.weight).abs().max() > 1e-4
    x, t = map(device.to_device, (torch.randn(4, 1, 8, 8), torch.ones(4)))
    one, two = (
        f.conditioned_on(torch.full((4,), label, device=x.device))(x, t) for label in (1, 2)
    )
    assert (one - two).abs().max() > 1e-4 and f.label is None


def test_distillation_tells_the_teacher_the_labels(ran, digits_file, tmp_path):
    settings = changed(TUNE, network__classes=10, target="euler")
    init = ran(CONDITIONAL) / "model.safetensors"
    train.run(settings, digits_file, tmp_path / "ecd", init=init)
    seen = []
    teacher = build.load_model(init)[0]
    told = lambda module, args, named: seen.append(named["label"])  # noqa: E731
    teacher.network.register_forward_pre_hook(told, with_kwargs=True)
    objective = parts.make_objective(settings, 0.5, teacher)
    label, x = map(device.to_device, (torch.tensor([3, 5]), torch.randn(2, 1, 8, 8)))
    objective(teacher.conditioned_on(label), x, torch.randn_like(x), torch.tensor([5.0, 9.0]), 0.9)
    assert seen and all(torch.equal(given, label) for given in seen)


@pytest.mark.parametrize("classes", [4, 9, 11, 1000])
def test_another_number_of_classes_than_the_images_have(digits_file, tmp_path, classes):
    with pytest.raises(ValueError, match=rf"classes is {classes}, but .* has 10; allowed: 10, as"):
        train.run(changed(CONDITIONAL, network__classes=classes), digits_file, tmp_path)


def with_labels(digits_file, path, names, label_of):
    """The digits with other classes: `names`, and a function of each label."""
    _, _, about = file.read(digits_file, "train")
    about = about | {"classes": names}
    with file.writing(path, about) as writer:
        for split in ("train", "test"):
            pixels, labels, _ = file.read(digits_file, split)
            writer.add(split, pixels[:200], [label_of(k) for k in labels[:200].tolist()])
    return path


def test_images_without_classes_do_not_train_a_network_with_classes(digits_file, tmp_path):
    data = with_labels(digits_file, tmp_path / "d", None, lambda k: 0)
    with pytest.raises(ValueError, match=r"classes is 10, but .* has no classes; allowed: 0, as"):
        train.run(CONDITIONAL, data, tmp_path / "out")


def sampled(path, **settings):
    return draw.labels_of(range(300), build.load_model(path)[2], **settings)


def test_classes_without_training_images_are_not_sampled(ran, digits_file, tmp_path):
    """Their embedding is that of the start. The file of a model with all classes says nothing."""
    assert "trained_classes" not in build.load_model(ran(CONDITIONAL) / "model.safetensors")[2]
    names = [str(k) for k in range(10)]
    data = with_labels(digits_file, tmp_path / "d", names, lambda k: k // 4 * 4 + 1)
    train.run(CONDITIONAL, data, tmp_path / "some")
    model = tmp_path / "some" / "model.safetensors"
    assert build.load_model(model)[2]["trained_classes"] == [1, 5, 9]
    assert set(sampled(model).tolist()) == {1, 5, 9}
    assert sampled(model, given=[9, 1])[:3].tolist() == [9, 1, 9]
    with pytest.raises(ValueError, match=r"labels has 2; allowed: .* trained on, \[1, 5, 9\]"):
        sampled(model, given=[1, 2])


def test_an_imported_network_may_have_more_classes_than_are_trained(ran, digits_file, tmp_path):
    init = ran(CONDITIONAL) / "model.safetensors"
    inherited = ("network", "process", "parameterization", "c_noise", "c_in")
    settings = {key: value for key, value in TUNE.items() if key not in inherited}
    data = with_labels(digits_file, tmp_path / "d", ["a", "b", "c"], lambda k: k % 3)
    train.run(settings, data, tmp_path / "tuned", init=init)
    assert set(sampled(tmp_path / "tuned" / "model.safetensors").tolist()) == {0, 1, 2}
    data = with_labels(digits_file, tmp_path / "e", [str(k) for k in range(11)], lambda k: k)
    with pytest.raises(ValueError, match=r"classes is 10, but .* has 11; allowed: 11 or more"):
        train.run(settings, data, tmp_path / "few", init=init)


def test_bf16_rounds_the_network_and_nothing_else(digits_file, tmp_path):
    """The losses are those of fp32 to bfloat16's 8 bits; weights and average stay float32."""
    losses = []
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        settings = changed(PRETRAIN, network=LITTLE, recipe__precision=precision)
        train.run(settings, digits_file, out)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append(torch.tensor([json.loads(line)["loss"] for line in lines]))
        weights, _ = checkpoint.load(out / "model.safetensors")
        assert all(value.dtype == torch.float32 for value in weights.values())
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)


def test_a_run_whose_gap_is_lost_says_so(digits_file, tmp_path, monkeypatch):
    """Before its first step, and where only a step shows it: else its loss is 0 to the end."""
    chosen = {"map": "constant", "options": {"q": 2.0**30, "stages": 1}, "clock": "noise"}
    lost = changed(TUNE, schedule=chosen, recipe__weight="edm")
    said = "schedule 'constant': at {} r is t, and the loss 0, for 100% of the noise levels"
    with pytest.raises(ValueError, match=said.format("the end of the run")):
        train.run(lost, digits_file, tmp_path / "o")
    monkeypatch.setattr(loop, "require_gap", lambda *_: None)
    with pytest.raises(ValueError, match=said.format("image 100")):
        train.run(lost, digits_file, tmp_path / "o")


def test_a_gap_that_the_time_of_the_process_loses_is_refused():
    """Flow's t = s / (1 + s): what the noise levels hold, t may not."""
    schedule = {"map": "constant", "options": {"q": 2.0**22, "stages": 1}, "clock": "noise"}
    for process in ("ve", "flow"):
        settings = changed(TUNE, process=process, schedule=schedule)
        objective = parts.make_objective(settings, 0.5)
        if process == "ve":
            parts.require_gap(objective, settings)
        else:
            with pytest.raises(ValueError, match=r"for \d+% of the noise levels"):
                parts.require_gap(objective, settings)


@pytest.mark.parametrize("dropout, masks", [(0.1, None), (0.1, 1), (0.1, 3), (0.0, 1)])
def test_masks_of_another_time_are_not_silently_those_of_today(
    digits_file, tmp_path, capsys, dropout, masks
):
    """The run.json of a run before masks had a version, by hand."""
    settings = changed(PRETRAIN, recipe__dropout=dropout, recipe__masks=masks)
    if masks is None:
        del settings["recipe"]["masks"]
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings, "inputs": {}}))
    words = ["train", tmp_path / "run.json", "--data", digits_file, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 1
    line = capsys.readouterr().err
    wanted = "recipe.masks: missing beside dropout 0.1" if masks is None else f"masks is {masks}"
    assert wanted in line and f"{MASKS}" in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_record_of_another_version_is_told(digits_file, tmp_path, capsys):
    settings = changed(PRETRAIN, recipe__batch=1000)
    for version, lines in ((STAGES["train"], 0), (STAGES["train"] - 1, 1)):
        made = {"settings": settings, "inputs": {}, "stages": {"train": version}}
        (tmp_path / "run.json").write_text(json.dumps(made))
        words = ["train", tmp_path / "run.json", "--data", digits_file, "--out", tmp_path / "out"]
        assert main([str(word) for word in words]) == 0
        told = f"is of version {version} of train, this code of version {STAGES['train']}"
        assert capsys.readouterr().err.count(told) == lines
