"""A config with plugins, for the tests of this folder."""

import copy

import pytest

from tests.helpers.configs import DEFAULT
from tests.helpers.plugins import BITS, REST


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A small config with a plugin of each kind in two files of the working directory, and blocks
    that are the same but for built-in parts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps.py").write_text(BITS)
    (tmp_path / "rest.py").write_text(REST)
    config = copy.deepcopy(DEFAULT)
    config["plugins"] = ["rest.py", "maps.py"]
    config["networks"]["small"] |= {"channels": 8, "multipliers": [1, 1], "attention": []}
    small = {"like": "ve", "kimg": 1, "every": 1}
    config["pretrain"] |= {
        "mine": small | {"process": "Cosine"},
        "theirs": small | {"process": "vp_cosine"},
    }
    config["schedules"] |= {
        "mine": {"map": "same_ratio", "stages": 4},
        "theirs": {"map": "constant", "stages": 4},
    }
    config["tune"] |= {
        "mine": {"like": "ect", "weight": "slope"},
        "theirs": {"like": "ect", "weight": "gap"},
    }
    config["samplers"] |= {
        "mine": {"kind": "straight", "label": "mine", "steps": 2, "nfe": 2},
        "theirs": {"kind": "euler", "label": "theirs", "steps": 2},
        "hops": {"kind": "hops", "label": "hops", "times": [3.0, 1.0], "nfe": 1},
    }
    config["features"] = {"extractor": "rows"}
    config["evaluation"] = {"images": 20, "batch": 10, "kd_subsets": 2}
    return config
