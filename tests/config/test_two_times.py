"""Keys of flow maps: the joint prior, the samplers along the map, what each objective needs."""

import pytest

from ect.config.config import Config, ConfigError
from ect.study import settings
from tests.helpers.configs import changed

FLAT = {"like": "ect", "weight": "uniform", "distance": {"kind": "squared", "c": 0.0}}
LOWER = {"kind": "lower", "mean": -4.0, "std": 1.6}


def study(schedule="soflow", joint=None, process=None, span="end", sampler=None, prior=None):
    """The default study with one row of a flow map."""
    config = changed("schedules/objective", {"map": schedule})
    config["networks"]["map"] = {"like": "small", "span": span}
    config["pretrain"]["map"] = {"like": "flow", "network": "map", **(process or {})}
    more = ({"joint": joint} if joint else {}) | ({"prior": prior} if prior else {})
    config["tune"]["map"] = FLAT | more
    config["samplers"]["map_two"] = sampler or {
        "kind": "flow_map", "times": [0.5], "gamma": 0.3, "label": "map"
    }  # fmt: skip
    row = config["experiments"]["methods"]["rows"][1] | {"tune": "map", "schedules": ["objective"]}
    row |= {"pretrain": ["map"], "samplers": ["map_two"]}
    config["experiments"]["methods"]["rows"] = [row]
    return config


def test_a_joint_prior_is_in_the_settings_where_it_is_named():
    config = Config.read(study(joint=LOWER))
    cell = config.cells("methods")[0]
    found = settings.train(config, cell.model)
    assert found["recipe"]["joint"] == {"kind": "lower", "options": {"mean": -4.0, "std": 1.6}}
    assert found["network"]["span"] == "end"
    assert found["schedule"]["options"] == {
        "pairs": 1.0, "p": 0.75, "c": 1e-3, "first": 1.0, "last": 0.0003125
    }  # fmt: skip
    plain = Config.read(study())
    models = {cell.model for cell in plain.all_cells()}
    assert all("joint" not in settings.train(plain, model)["recipe"] for model in models)
    assert settings.sample(config, "map_two")["options"] == {"times": [0.5], "gamma": 0.3}
    assert config.samplers["map_two"].evaluations == 2


VE = {"process": "ve", "parameterization": "edm", "weight": "edm"}


@pytest.mark.parametrize("schedule", ["soflow", "psd", "lsd"])
def test_some_objectives_serve_every_process(schedule):
    assert Config.read(study(schedule, process=VE)).cells("methods")


def sampler(**keys):
    return {"kind": "flow_map", "label": "map", **keys}


MISTAKES = {
    "lower of nothing": ({"joint": {"kind": "lower"}}, "kind is 'lower' with nothing; allowed:"),
    "sorted of a mean": ({"joint": LOWER | {"kind": "sorted"}}, "'sorted' with mean, std; allowed"),
    "karras": (
        {"joint": LOWER, "prior": {"kind": "karras", "mean": None, "std": None}},
        "joint is 'lower' with the prior 'karras'; allowed: a prior lognormal",
    ),
    "one time": (
        {"joint": LOWER, "schedule": "sigmoid"},
        r"\(sigmoid\) with recipe 'map', found a joint prior; allowed: meanflow,",
    ),
    "a grid": (
        {"joint": LOWER, "schedule": "shortcut"},
        r"\(shortcut\) .* joint prior; allowed: meanflow, imf,",
    ),
    "no span": (
        {"span": False, "sampler": {"kind": "multistep", "label": "map"}},
        r"\(soflow\) with start 'map'; allowed: a pretrain block with a network with span",
    ),
    "imf of ve": (
        {"schedule": "imf", "process": VE}, r"\(imf\) with start 'map'; allowed: .* process flow"
    ),
    "a map of one time": (
        {"span": False, "schedule": "sigmoid"}, "sampler 'map_two' is a flow_map, and start 'map'"
    ),
    "gamma": (
        {"sampler": {"kind": "multistep", "gamma": 0.5, "label": "map"}},
        "gamma is set for 'multistep'; allowed: flow_map only",
    ),
    "gamma 2": ({"sampler": sampler(gamma=2.0)}, "gamma: found 2.0; allowed: .*1"),
    "steps": ({"sampler": sampler(steps=3)}, "steps is set for 'flow_map'; allowed: times"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name):
    changes, said = MISTAKES[name]
    with pytest.raises(ConfigError, match=said) as error:
        Config.read(study(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"map": "shortcut", "steps": 100}, "steps is 100; allowed: a power of 2, from 2 to 1024"),
        ({"map": "soflow", "first": 0.1, "last": 0.5}, "last is 0.5; allowed: < first = 0.1"),
        ({"map": "alphaflow", "start": 0.9, "end": 0.5}, "start is 0.9; allowed: < end = 0.5"),
        ({"map": "piecewise", "start": 0.9}, None),
    ],
)
def test_options_of_objectives_are_checked(options, said):
    config = changed("schedules/objective", options)
    if said is None:
        assert Config.read(config)
        return
    with pytest.raises(ConfigError, match=said):
        Config.read(config)
