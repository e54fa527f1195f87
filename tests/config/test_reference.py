"""docs/reference.md and the schema for editors are what the blocks say, and a study's file is valid
where the config check takes it."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from ect.config import load, places, reference
from ect.config.config import Config, ConfigError

ROOT = Path(__file__).parents[2]
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "workflow" / "studies").glob("*.yaml"))]
SCHEMA = json.loads(reference.SCHEMA.read_text())
each_study = pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])


def test_what_is_written_is_what_the_code_would_write():
    for path, text in reference.texts().items():
        assert path.read_text() == text, (
            f"{path.name}: python -m ect.config.reference writes it anew"
        )


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@each_study
def test_every_study_is_valid(path):
    jsonschema.validate(places.read(path)[0], SCHEMA)


def test_the_line_for_editors_leads_to_the_schema():
    lines = {path: path.read_text().splitlines()[0] for path in STUDIES}
    named = {path: line.split("$schema=")[1] for path, line in lines.items() if "$schema=" in line}
    assert STUDIES[0] in named and len(named) > 5
    for path, target in named.items():
        assert (path.parent / target).resolve() == reference.SCHEMA


WRONG = {
    "colour: red": "unknown",
    "study: My Config": "a name",
    "dataset: {source: digit}": "no such source",
    "networks: {small: {channels: 10}}": "no multiple of 4",
    "networks: {Small: {channels: 8}}": "a name",
    "pretrain: {ve: {kimg: 0}}": "none",
    "pretrain: {ve: {prior: {sigma: 1}}}": "unknown",
    "tune: {ect: {optimizer: {lr: fast}}}": "text",
    "tune: {ect: {dropout: 1.0}}": "no share",
    "samplers: {one_step: {times: [-1.0]}}": "negative",
    "evaluation: {metrics: [fid]}": "no such metric",
    "experiments: {methods: {rows: []}}": "none",
    "figures: {samples: {step: 1}}": "unknown",
}


@pytest.mark.parametrize("text", WRONG)
def test_schema_and_check_refuse_the_same_mistakes(text):
    wrong = yaml.safe_load(text)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    Config.read(copy.deepcopy(config))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)
    with pytest.raises(ConfigError):
        Config.read(load._laid_over(config, wrong))


def test_a_block_may_be_like_another_or_null():
    jsonschema.validate({"tune": {"a": {"like": "ect", "weight": "gap"}, "b": None}}, SCHEMA)


def test_every_key_of_the_config_has_a_row():
    page = reference.page()
    for block in (reference.whole(), *reference.whole()["$defs"].values()):
        for key, value in block["properties"].items():
            assert f"| `{key}` |" in page and value["description"].endswith((".", ")"))
