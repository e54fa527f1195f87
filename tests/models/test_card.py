"""The card's front matter, as Hugging Face's own parser reads it: what records hold, no more."""

import json
import math
import statistics

import pytest

from ect.cli import main
from ect.models.export import results
from ect.runtime import checkpoint, record
from tests.helpers.runs import TUNE
from tests.models.test_diffusers_pipeline import EDM, NETWORK, saved

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra 'hub' is not installed")
CELL = {"sampler": "one_step", "label": "1 step", "nfe": 1}
SETS = {"fd": [30.0, 31.0, 35.0], "kd": [0.25, 0.5, 0.75]}


def job(folder, name, inputs, content):
    """A file that a job wrote into a folder, with the record of that job beside it; its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    digest = record.digest(folder / name)
    stem = "features" if name.startswith("features") else "run"
    made = {"settings": {}, "inputs": inputs, "outputs": {name: digest}}
    checkpoint.write_json(folder / f"{stem}.json", made)
    return digest


@pytest.fixture
def study(tmp_path):
    """A model, its dataset, three sets of its images, and what was measured of them."""
    model = saved(tmp_path / "run" / "model.safetensors", EDM, NETWORK, 1)
    data = tmp_path / "data" / "dataset.safetensors"
    digest = job(data.parent, data.name, {}, b"images")
    made = json.loads((data.parent / "run.json").read_text())
    checkpoint.write_json(data.parent / "run.json", made | {"settings": {"source": "cifar10"}})
    run = {
        "settings": TUNE | {"network": NETWORK}, "inputs": {str(data): digest}, "code": {},
        "packages": {}, "device": "cpu", "outputs": {model.name: record.digest(model)},
    }  # fmt: skip
    checkpoint.write_json(model.parent / "run.json", run)
    cell = model.parent / "one_step"
    sets = {}
    for place in (cell, cell / "repeat-1", cell / "repeat-2"):
        drawn = {"m": record.digest(model)}
        images = job(place, "samples.npz", drawn, str(place).encode())
        features = job(place, "features.safetensors", {"s": images}, str(place).encode() * 2)
        sets[str(place)] = features
    measure(cell, sets)
    return model


def measure(cell, inputs):
    facts = {"features": "inception", "images": 50000, "reference_images": 49000, "cell": CELL}
    facts |= {name: statistics.fmean(values) for name, values in SETS.items()} | {"repeats": SETS}
    path = cell / "metrics.json"
    checkpoint.write_json(path, facts)
    made = {"settings": {}, "inputs": inputs, "outputs": {path.name: record.digest(path)}}
    checkpoint.write_json(cell / ".metrics.json.record.json", made)


def card_of(model, *words):
    out = model.parent.parent / "out"
    assert main.main(["export", str(model), "--out", str(out), *words]) == 0
    card = huggingface_hub.ModelCard.load(out / "README.md")
    return card.data, card.text


def test_the_numbers_of_the_records_are_the_cards(study):
    data, text = card_of(study, "--diffusers")
    assert data.library_name == "diffusers" and data.license == "apache-2.0"
    assert data.datasets == ["cifar10"] and data.model_name == "out"
    found = {result.metric_type: result for result in data.eval_results}
    assert found.keys() == SETS.keys()
    for kind, values in SETS.items():
        result = found[kind]
        assert result.metric_value == pytest.approx(statistics.fmean(values))
        assert result.dataset_type == "cifar10" and "inception" in result.metric_name
        args = result.metric_args
        assert (args["images"], args["reference_images"], args["sets"]) == (50000, 49000, 3)
        low, high = args["interval_95"]
        half = 4.30265 * statistics.stdev(values) / math.sqrt(3)  # t of 2 degrees of freedom
        assert (low + high) / 2 == pytest.approx(result.metric_value)
        assert (high - low) / 2 == pytest.approx(half, rel=1e-5)
    assert "| 1 step | 1 | Frechet distance | 32 |" in text and "`inception`" in text


def test_a_script_folder_has_them_too(study):
    data, _ = card_of(study)
    assert data.library_name == "ect-pipeline" and len(data.eval_results) == 2


def forget(study):
    (study.parent / "one_step" / ".metrics.json.record.json").unlink()


def edit(study):
    path = study.parent / "one_step" / "metrics.json"
    path.write_text(path.read_text().replace("30.0", "3.0"))


def draw_from_another(study):
    for path in study.parent.rglob("run.json"):
        if path.parent != study.parent:
            made = json.loads(path.read_text())
            checkpoint.write_json(path, made | {"inputs": {"m": "0" * 64}})


def lose_a_set(study):
    (study.parent / "one_step" / "repeat-1" / "features.json").unlink()


@pytest.mark.parametrize("change", [forget, edit, draw_from_another, lose_a_set])
def test_a_number_that_no_chain_of_hashes_leads_to_is_not_told(study, change):
    assert len(results.measured(study)) == 1
    change(study)
    assert results.measured(study) == []


def test_a_model_alone_has_no_dataset_and_no_numbers(tmp_path):
    data, text = card_of(saved(tmp_path / "run" / "model.safetensors", EDM, NETWORK, 1))
    assert data.datasets is None and data.eval_results is None and data.license == "unknown"
    assert "## Measured" not in text
