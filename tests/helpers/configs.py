"""The default config, and changes of it."""

import copy
import json
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEFAULT = json.loads(json.dumps(yaml.safe_load((ROOT / "config.yaml").read_text())))  # no aliases
PICKLE = ROOT / "tests/helpers/start.pkl"  # of None: weights, as far as a config looks


def changed(path, value):
    """The default config with one key set, or removed where the value is `...`."""
    config = copy.deepcopy(DEFAULT)
    block, parts = config, path.split("/")
    for part in parts[:-1]:
        block = block[int(part)] if isinstance(block, list) else block[part]
    if value is ...:
        del block[parts[-1]]
    else:
        block[parts[-1]] = value
    return config


CUT = {"pretrain": "ve", "kimg": 30, "tune": "ect", "tune_kimg": 30, "schedule": "sigmoid"}
SEARCH = {"models": [CUT], "images": 100, "seed": 5000}
