"""Files that a job puts together come from one another, or the job says which do not."""

import json
import shutil

import numpy as np
import pytest
import torch

from ect.cli.main import main
from ect.data import file
from ect.evaluation import classifier, evaluate, sample, summary
from ect.evaluation import features as features_of
from ect.models.load import load
from ect.runtime import checkpoint
from ect.runtime.record import digest, of
from ect.study import settings as study_settings
from tests.evaluation.test_evaluate import files, study  # noqa: F401 - a fixture

SPACE = {"extractor": "classifier"} | study_settings.feature_space(study())


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):  # noqa: F811
    """Files of two origins: another classifier, other images, another model, and what each made."""
    folder = tmp_path_factory.mktemp("origin")
    found = dict(files) | {"folder": folder}
    options = {"channels": 4, "epochs": 1, "batch": 90, "lr": 1e-3}
    classifier.run(options, files["data"], folder / "other")
    found["other_classifier"] = folder / "other" / "classifier.safetensors"
    found["other_data"] = folder / "other_data.safetensors"
    parts = {split: file.read(files["data"], split) for split in ("train", "test")}
    with file.writing(found["other_data"], parts["train"][2]) as writer:
        for split, (pixels, labels, _) in parts.items():
            writer.add(split, pixels[:40], labels[:40])
    tensors, about = checkpoint.load(files["model"])
    found["other_model"] = folder / "m" / "model.safetensors"
    checkpoint.save(found["other_model"], {k: v + 0.01 for k, v in tensors.items()}, **about)
    for name in ("", "other_"):
        found[f"{name}reference"] = folder / f"{name}r" / "reference.safetensors"
        evaluate.extract(
            {"features": SPACE}, found[f"{name}reference"], data=found[f"{name}data"],
            classifier=found["classifier"],
        )  # fmt: skip
    return found


def features(made, name, model="model", network="classifier", **changed):
    """Features of sampled images."""
    drawn = study_settings.sample(study(), "one_step") | changed
    out = made["folder"] / name / "features.safetensors"
    evaluate.extract(
        {"features": SPACE, "sampling": drawn}, out, model=made[model], classifier=made[network]
    )
    return out


def run(capsys, verb, settings, out, **options):
    """The exit code of a verb, and its line, without those about files that have no record."""
    words = [verb, json.dumps(settings), "--out", str(out)]
    for key, value in options.items():
        several = value if isinstance(value, list) else [value]
        words += [f"--{key}", *map(str, several)]
    code = main(words)
    lines = capsys.readouterr().err.splitlines(keepends=True)
    err = "".join(line for line in lines if "taken as it is" not in line)
    assert err.count("\n") == code, err
    return code, err


MEASURED = {"features": SPACE | {"kd_subsets": 2}, "cell": {}}


def test_features_of_another_network_are_refused(made, tmp_path, capsys):
    """The same space by name and width, another network: by --classifier, or by the records."""
    ours, theirs = features(made, "ours"), features(made, "theirs", network="other_classifier")
    out = tmp_path / "metrics.json"
    both = {"reference": made["reference"]}
    assert run(capsys, "evaluate", MEASURED, out, samples=ours, **both) == (0, "")
    with_network = both | {"classifier": made["classifier"]}
    assert run(capsys, "evaluate", MEASURED, out, samples=ours, **with_network) == (0, "")
    out.unlink()
    code, line = run(capsys, "evaluate", MEASURED, out, samples=theirs, **both)
    assert code == 1 and "found features of another network than those in" in line
    code, line = run(capsys, "evaluate", MEASURED, out, samples=theirs, **with_network)
    assert code == 1 and f"{theirs}: found features of another network than" in line
    other = both | {"classifier": made["other_classifier"]}
    code, line = run(capsys, "evaluate", MEASURED, out, data=made["data"], **other)
    assert code == 1 and f"{made['reference']}: found features of another network" in line
    assert not out.exists()


def test_a_reference_of_other_images_is_refused(made, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    given = {"classifier": made["classifier"], "data": made["data"]}
    assert run(capsys, "evaluate", MEASURED, out, reference=made["reference"], **given) == (0, "")
    code, line = run(capsys, "evaluate", MEASURED, out, reference=made["other_reference"], **given)
    assert code == 1 and "made from images other than" in line


def test_repeats_are_of_one_model_and_one_sampler_from_seeds_apart(made, tmp_path, capsys):
    first, second = features(made, "first", seed=1000), features(made, "second", seed=1020)
    wrong = {
        "drawn from another model": features(made, "a", model="other_model", seed=2000),
        "drawn otherwise": features(made, "b", seed=2000, batch=5),
        "which .* has too; allowed: seeds apart": features(made, "c", seed=1010),
    }
    given = {"reference": made["reference"], "classifier": made["classifier"]}
    out = tmp_path / "metrics.json"
    assert run(capsys, "evaluate", MEASURED, out, samples=[first, second], **given) == (0, "")
    for message, third in wrong.items():
        pair = [first, second, third]
        with pytest.raises(ValueError, match=message):
            evaluate.run(MEASURED, pair, None, out, made["classifier"], made["reference"])


def test_features_of_stored_repeats_are_known_by_their_images(made, tmp_path):
    paths = []
    for name, model in (("x", "model"), ("y", "other_model")):
        settings = study_settings.sample(study(), "one_step") | {"seed": 50 * len(paths)}
        sample.run(settings, made[model], tmp_path / name)
        paths.append(tmp_path / name / "features.safetensors")
        evaluate.extract(
            {"features": SPACE}, paths[-1], drawn=tmp_path / name / "samples.npz",
            classifier=made["classifier"],
        )  # fmt: skip
    with pytest.raises(ValueError, match="drawn from another model"):
        evaluate.run(MEASURED, paths, None, tmp_path / "m", made["classifier"], made["reference"])


@pytest.mark.parametrize("verb", ["search-steps", "trace"])
def test_searches_and_traces_hold_to_the_references_network(verb, made, tmp_path, capsys):
    seeds = {"seed": 0, "images": 10, "test_seed": 100, "test_images": 10, "batch": 4}
    search = {"features": SPACE | {"kd_subsets": 2}, "metric": "fd", "steps": [2], **seeds}
    search |= {"evaluations": 2, "low": 0.1, "high": 20.0}
    traced = {"features": SPACE, "samplers": {"a": study_settings.sample(study(), "one_step")}}
    tensors, about = checkpoint.load(made["model"])
    snapshots = tmp_path / "snapshots.safetensors"
    checkpoint.save(snapshots, checkpoint.prefixed("8", tensors), **about)
    options = {
        "search-steps": {"model": made["model"]},
        "trace": {"init": made["model"], "snapshots": snapshots, "data": made["data"]},
    }[verb]
    settings = {"search-steps": search, "trace": traced}[verb]
    given = {"reference": made["reference"]}
    out = tmp_path / "out"
    ours = {"classifier": made["classifier"]}
    assert run(capsys, verb, settings, out, **options, **given, **ours) == (0, "")
    theirs = {"classifier": made["other_classifier"]}
    code, line = run(capsys, verb, settings, out, **options, **given, **theirs)
    assert code == 1 and "found features of another network than" in line


@pytest.mark.parametrize("wrong", ["init", "data", "reference"])
def test_a_trace_is_of_one_run(wrong, made, tmp_path, capsys):
    tensors, about = checkpoint.load(made["model"])
    snapshots = tmp_path / "snapshots.safetensors"
    checkpoint.save(snapshots, checkpoint.prefixed("8", tensors), **about)
    record = {
        "inputs": {str(made[key]): digest(made[key]) for key in ("model", "data")},
        "outputs": {snapshots.name: digest(snapshots)}, "settings": {},
    }  # fmt: skip
    checkpoint.write_json(tmp_path / "run.json", record)
    settings = {"features": SPACE, "samplers": {"a": study_settings.sample(study(), "one_step")}}
    given = {"init": made["model"], "data": made["data"], "reference": made["reference"]}
    given |= {"snapshots": snapshots, "classifier": made["classifier"]}
    assert run(capsys, "trace", settings, tmp_path / "t.csv", **given) == (0, "")
    given[wrong] = made["other_model" if wrong == "init" else f"other_{wrong}"]
    code, line = run(capsys, "trace", settings, tmp_path / "t.csv", **given)
    assert code == 1 and "by the record beside it; allowed: files of one origin" in line


@pytest.mark.parametrize("verb", ["summarize", "evaluate"])
def test_a_reference_that_was_edited_is_refused(verb, made, tmp_path, capsys):
    for path in (made["reference"], made["reference"].with_suffix(".json")):
        shutil.copy(path, tmp_path)
    reference = tmp_path / "reference.safetensors"
    tensors, about = checkpoint.load(reference)
    assert of(reference)["settings"] == {"features": SPACE}
    checkpoint.save(reference, {"features": torch.flip(tensors["features"], [0]) * 1.1}, **about)
    given = {"reference": reference}
    settings = {"summarize": {"radii": False}, "evaluate": MEASURED}[verb]
    given |= {"samples": features(made, "drawn")} if verb == "evaluate" else {}
    code, line = run(capsys, verb, settings, tmp_path / "out", **given)
    assert code == 1 and "found other bytes than its job wrote" in line


WRONG_RECORDS = {
    "no JSON": "{",
    "a list": "[]",
    "inputs a list": '{"inputs": []}',
    "a digest a number": '{"inputs": {"a": 3}}',
    "an output a list": '{"outputs": {"reference.safetensors": []}}',
    "settings a text": '{"settings": "a"}',
    "features a list": '{"settings": {"features": []}}',
    "plugins a list": '{"settings": {"features": {"plugins": []}}}',
    "a seed a text": '{"settings": {"sampling": {"seed": "1"}}}',
}


@pytest.mark.parametrize("text", WRONG_RECORDS.values(), ids=WRONG_RECORDS)
def test_a_record_that_is_none_is_named(text, made, tmp_path, capsys):
    shutil.copy(made["reference"], tmp_path)
    (tmp_path / "reference.json").write_text(text)
    given = {"reference": tmp_path / "reference.safetensors"}
    code, line = run(capsys, "summarize", {"radii": False}, tmp_path / "out", **given)
    assert code == 1 and str(tmp_path / "reference.json") in line


def test_more_images_than_the_disk_holds_are_refused(made, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=20 * 64 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    settings = study_settings.sample(study(), "one_step")
    with pytest.raises(ValueError, match="images: found 20, of 1,280 bytes in all; allowed: 1,279"):
        sample.run(settings, made["model"], tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_features_of_an_edited_plugin_are_another_space(made, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from ect.plugins import features\n\n\n@features\ndef means(pixels):\n"
        "    return pixels.reshape(len(pixels), -1)[:, :4].astype('float32')\n"
    )
    space = {"extractor": "means", "plugins": {str(plugin): digest(plugin)}}
    one = tmp_path / "one.safetensors"
    evaluate.extract({"features": space}, one, data=made["data"])
    plugin.write_text(plugin.read_text().replace(":4", "2:6"))
    space = {"extractor": "means", "plugins": {str(plugin): digest(plugin)}, "kd_subsets": 2}
    settings = MEASURED | {"features": space}
    with pytest.raises(ValueError, match=r"its plugins is .* allowed: .* as in settings"):
        evaluate.run(settings, None, made["data"], tmp_path / "m", reference=one)
    assert checkpoint.load(one)[0]["features"].isfinite().all()


def test_features_of_drawn_and_of_training_images_are_told_apart(made, tmp_path, capsys):
    """--samples and --reference exchanged: the distance would be of the wrong sets."""
    ours, out = features(made, "apart"), tmp_path / "out"
    network = {"classifier": made["classifier"]}
    wrong = {"samples": made["reference"], "reference": made["reference"], **network}
    code, line = run(capsys, "evaluate", MEASURED, out, **wrong)
    assert code == 1 and f"{made['reference']}: found features of the training images" in line
    code, line = run(capsys, "evaluate", MEASURED, out, samples=ours, reference=ours, **network)
    assert code == 1 and f"{ours}: found features of drawn images" in line
    code, line = run(capsys, "summarize", {"radii": False}, out, reference=ours)
    assert code == 1 and f"{ours}: found features of drawn images" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"nfe": 1}, None),
        ({"nfe": 2}, "drawn with 1 evaluations .* allowed: 2, the cell's nfe"),
        ({"nfe": 1, "process": "flow"}, "whose process is ve; allowed: flow, the cell's"),
        ({"nfe": 1, "seed": 3}, "whose seed is 0; allowed: 3, the cell's"),
        ({"nfe": 1, "kimg": 12, "tune_kimg": 7}, "whose last_kimg is 12; allowed: 7, the cell's"),
    ],
)
def test_a_cell_is_that_of_its_images(cell, words, made, tmp_path):
    """By the record of the job that drew them, and of the run that trained their model."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(made["model"], folder / "model.safetensors")
    facts = {"process": "ve", "seed": 0, "last_kimg": 12}
    outputs = {"model.safetensors": digest(made["model"])}
    checkpoint.write_json(
        folder / "run.json", {"settings": facts, "inputs": {}, "outputs": outputs}
    )
    ours = features({**made, "folder": folder, "model": folder / "model.safetensors"}, "x")
    settings = {"features": MEASURED["features"], "cell": cell}
    both = made["classifier"], made["reference"]
    if words is None:
        evaluate.run(settings, ours, None, tmp_path / "out", *both)
        return
    with pytest.raises(ValueError, match=f"{ours}: {words}|{ours}: drawn from .*{words}"):
        evaluate.run(settings, ours, None, tmp_path / "out", *both)


@pytest.mark.parametrize("floor", [True, False])
def test_a_floor_is_of_held_out_images_and_another_cell_of_drawn_ones(
    floor, made, tmp_path, capsys
):
    cell = {"floor": True} if floor else {"sampler": "one_step", "nfe": 1}
    given = {"samples": features(made, "kind")} if floor else {"data": made["data"]}
    given |= {"reference": made["reference"], "classifier": made["classifier"]}
    code, line = run(capsys, "evaluate", MEASURED | {"cell": cell}, tmp_path / "out", **given)
    found = "a floor with --samples" if floor else "the sampler one_step without --samples"
    assert code == 1 and f"settings: cell: found {found}; allowed: a " in line


@pytest.mark.parametrize("shape", [(3, 9, 9, 1), (3, 16, 16, 1), (3, 8, 8, 3)])
def test_a_classifier_reads_images_of_its_shape_alone(shape, made, tmp_path, capsys):
    """9 x 9 would pass through its network too."""
    np.savez(tmp_path / "s.npz", np.zeros(shape, np.uint8))
    given = {"samples": tmp_path / "s.npz", "classifier": made["classifier"]}
    code, line = run(capsys, "extract", {"features": SPACE}, tmp_path / "o.safetensors", **given)
    side = "x".join(map(str, shape[1:]))
    assert code == 1 and f"given images of {side}; allowed: of 8x8x1" in line


def test_sampling_goes_with_a_model_alone(made, tmp_path, capsys):
    """Its record would say that the images were drawn."""
    drawn = study_settings.sample(study(), "one_step")
    network, out = {"classifier": made["classifier"]}, tmp_path / "o.safetensors"
    both = {"features": SPACE, "sampling": drawn}
    code, line = run(capsys, "extract", both, out, data=made["data"], **network)
    assert code == 1 and "found sampling with --data; allowed: sampling with --model alone" in line
    code, line = run(capsys, "extract", {"features": SPACE}, out, model=made["model"], **network)
    assert code == 1 and "found no sampling with --model" in line


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"features": "class\nifier"},
            "for the space of its features; allowed: a name on one line",
        ),
        ({"features": " "}, "for the space of its features"),
        ({"resize": ["pil"]}, r"images resized by \['pil'\]; allowed: lanczos, dhariwal"),
        ({"resize": None}, "images resized by None"),
        ({}, r"holds \(0, 5\) of torch.float32; allowed: .*, at least one of each"),
    ],
)
def test_what_a_file_of_features_says_is_typed(changed, words, tmp_path):
    path, rows = tmp_path / "f.safetensors", 4 if changed else 0
    about = {"features": "classifier"} | changed
    checkpoint.save(path, {"features": torch.zeros(rows, 5)}, **about)
    with pytest.raises(ValueError, match=words):
        features_of.load(path)


def test_a_summary_is_of_the_covariance_of_the_features(tmp_path):
    """Of another one with the same trace; of moments that are not finite; of one image."""
    path, out = tmp_path / "f.safetensors", tmp_path / "s.safetensors"
    found = torch.randn(40, 5, dtype=torch.float64) * torch.arange(1, 6)
    features_of.save(path, found, "classifier")
    summary.run({"radii": False}, path, out)
    summary.laid_over(found.numpy(), out, path)
    tensors, about = checkpoint.load(out)
    checkpoint.save(out, tensors | {"root": tensors["root"].flip(0)}, **about)
    with pytest.raises(ValueError, match="another root; allowed: that of the features"):
        summary.laid_over(found.numpy(), out, path)
    features_of.save(path, found * 1e200, "classifier")
    with pytest.raises(FloatingPointError, match="of its features is not finite"):
        summary.run({"radii": False}, path, out)
    features_of.save(path, found[:1], "classifier")
    with pytest.raises(ValueError, match="of 1 image; allowed: of 2 or more"):
        summary.run({"radii": False}, path, out)


def test_a_model_that_is_not_as_its_run_left_it_is_refused(made, tmp_path, capsys):
    """By the verbs that read one, and in a program."""
    model = tmp_path / "model.safetensors"
    tensors, about = checkpoint.load(made["model"])
    checkpoint.save(model, tensors, **about)
    facts = {"settings": {}, "inputs": {}, "outputs": {model.name: digest(model)}}
    checkpoint.write_json(tmp_path / "run.json", facts)
    drawn = study_settings.sample(study(), "one_step")
    assert run(capsys, "sample", drawn, tmp_path / "a", model=model) == (0, "")
    assert load(tmp_path).shape == (8, 8, 1)
    checkpoint.save(model, {key: 2 * value for key, value in tensors.items()}, **about)
    code, line = run(capsys, "sample", drawn, tmp_path / "b", model=model)
    assert code == 1 and f"{model}: found other bytes than its job wrote" in line
    with pytest.raises(ValueError, match="found other bytes than its job wrote"):
        load(tmp_path)


def test_features_without_a_record_are_taken_with_a_word(made, tmp_path, capsys):
    """They may be of another network, and nobody can say it."""
    bare = tmp_path / "bare.safetensors"
    shutil.copy(made["reference"], bare)
    words = ["evaluate", json.dumps(MEASURED), "--samples", str(features(made, "known"))]
    words += ["--reference", str(bare), "--classifier", str(made["classifier"])]
    assert main([*words, "--out", str(tmp_path / "metrics.json")]) == 0
    told = f"ect evaluate: no record beside {bare} says what it was made from; taken as it is\n"
    assert capsys.readouterr().err == told
    words[1] = json.dumps(MEASURED | {"cell": {"nfe": 7}})
    assert main([*words, "--out", str(tmp_path / "metrics.json")]) == 1
    assert "taken as it is" not in capsys.readouterr().err  # of what is refused
