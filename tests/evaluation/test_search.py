"""The search of multistep times: golden section, the order of levels, seeds kept apart."""

import json
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ect import sampler
from ect.cli.main import main
from ect.evaluation import classifier, evaluate, features, sample, search
from ect.process import VE, expand
from ect.training import train
from tests.helpers.runs import PRETRAIN

SETTINGS = {
    "features": {"extractor": "classifier", "kd_subsets": 3},
    "metric": "fd",
    "steps": [2, 3],
    "images": 80,
    "batch": 40,
    "seed": 1000,
    "test_seed": 5000,
    "test_images": 90,
    "evaluations": 3,
    "low": 0.02,
    "high": 40.0,
}
BOUNDS = {"low": 0.02, "high": 40.0, "evaluations": 25}
UNIMODAL = {
    "square": lambda d: d**2,
    "corner": abs,
    "skewed": lambda d: math.exp(d) - d,
    "one side flat": lambda d: max(d, 0.0) + 1e-3 * abs(d),
    "steep": lambda d: abs(d) ** 0.25,
}


@given(st.sampled_from(sorted(UNIMODAL)), st.floats(-3, 5), st.integers(1, 20))
def test_golden_section_is_as_close_as_the_golden_ratio_says(name, centre, evaluations):
    seen = []

    def value(x):
        seen.append(x)
        return UNIMODAL[name](x - centre)

    best = search.golden(value, -3.0, 5.0, evaluations)
    assert len(seen) == len(set(seen)) == evaluations
    assert all(-3 < x < 5 for x in seen)
    assert UNIMODAL[name](best - centre) == min(UNIMODAL[name](x - centre) for x in seen)
    assert abs(best - centre) <= 8 * search.RATIO**evaluations + 1e-9


def test_golden_section_asks_no_point_twice_where_floats_end():
    seen = []
    search.golden(lambda x: seen.append(x) or abs(x - 1.5), 1.0, 2.0, 1000)
    assert len(seen) == len(set(seen)) < 200


@pytest.mark.parametrize("low, high, evaluations", [(1.0, 1.0, 5), (2.0, 1.0, 5), (0.0, 1.0, 0)])
def test_golden_section_of_nothing(low, high, evaluations):
    with pytest.raises(ValueError, match="no search"):
        search.golden(abs, low, high, evaluations)


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_levels_fall_and_never_get_worse(targets):
    """Whatever the value prefers, even an order that is not allowed."""

    def value(times):
        return sum((math.log(s) - c) ** 2 for s, c in zip(times, targets))

    times = ()
    for _ in range(3):
        before = times
        times, tried = search.extend(value, before, BOUNDS | {"evaluations": 6})
        for levels in tried:
            bounded = (40.0, *levels, 0.02)
            assert all(a > b for a, b in pairwise(bounded))
        kept = [found for levels, found in tried.items() if levels[:-1] == before]
        assert len(kept) >= 6 and tried[times] == min(tried.values()) <= min(kept)


@pytest.mark.parametrize("sd", [0.5, 2.0])
def test_the_times_of_a_gaussians_denoiser_are_known(sd):
    """f = E[x_0 | x_t] of N(0, sd^2) gives images of variance v' = (v + s^2) sd^4 / (sd^2 + s^2)^2,
    too little. From v = 0 it is largest at s_j = sd / sqrt(j), j = 1, 2, ..., and then
    v = sd^2 (k - 1) / (2 k) after k steps; the first step's v of sd^4 / 80^2 moves s^2 by twice
    that."""

    def f(x, t):
        return expand(sd**2 / (sd**2 + t**2), x) * x

    def value(times):
        eps = torch.eye(1 + len(times), dtype=torch.float64)[:, :, None, None, None]
        weights = sampler.multistep(f, VE(), eps, times)  # of each noise in an image
        return (sd - weights.square().sum().sqrt().item()) ** 2  # the Frechet distance

    times = ()
    for k in (2, 3, 4):
        times, tried = search.extend(value, times, BOUNDS)
        known = [sd / math.sqrt(j) for j in range(1, k)]
        assert times == pytest.approx(known, rel=3 * sd**2 / 80**2 + 1e-3)
        v = sd**2 * (k - 1) / (2 * k)
        assert tried[times] == pytest.approx((sd - math.sqrt(v)) ** 2, rel=3 * sd**2 / 80**2)


@pytest.fixture(scope="module")
def files(digits_file, tmp_path_factory):
    """A model after 1,000 images, the data, and the weights of a feature space."""
    folder = tmp_path_factory.mktemp("search")
    train.run(PRETRAIN, digits_file, folder / "model")
    options = {"channels": 4, "epochs": 1, "batch": 99, "lr": 1e-3}
    classifier.run(options, digits_file, folder)
    network, reference = folder / "classifier.safetensors", folder / "reference.safetensors"
    space = {"features": SETTINGS["features"]}
    evaluate.extract(space, reference, data=digits_file, classifier=network)
    return {
        "model": folder / "model" / "model.safetensors",
        "reference": reference,
        "classifier": network,
    }


def searched(files, out, **changes):
    search.run(SETTINGS | changes, out=out, **files)
    return json.loads(out.read_text())


@pytest.mark.parametrize("metric", ["fd", "kd"])
def test_what_is_written_is_what_the_verbs_measure(metric, files, digits_file, tmp_path):
    """The value on both ranges of seeds is that of `sample` and `evaluate` at the chosen times."""
    found = searched(files, tmp_path / "found.json", metric=metric)
    assert [row["k"] for row in found["steps"]] == [2, 3]
    assert (found["metric"], found["features"]) == (metric, "classifier")
    for row in found["steps"]:
        assert len(row["evaluations"]) == (row["k"] - 1) * SETTINGS["evaluations"]
        assert [row["times"], row["search"]] == min(row["evaluations"], key=lambda each: each[1])
        for part in ("search", "test"):
            sampling = {"kind": "multistep", "options": {"times": row["times"]}, "batch": 33}
            sample.run(sampling | found[part], files["model"], tmp_path)
            evaluate.run(
                {"features": SETTINGS["features"], "cell": {}},
                tmp_path / "samples.npz", digits_file, tmp_path / "m.json", files["classifier"],
            )  # fmt: skip
            measured = json.loads((tmp_path / "m.json").read_text())
            assert measured["images"] == found[part]["images"]
            assert row[part] == pytest.approx(measured[metric], rel=1e-4, abs=1e-8)


def test_a_search_is_its_settings(files, tmp_path):
    searched(files, tmp_path / "a.json")
    torch.manual_seed(1)
    words = [
        "--model",
        files["model"],
        "--reference",
        files["reference"],
        "--out",
        tmp_path / "b.json",
    ]
    words = ["search-steps", json.dumps(SETTINGS), *words, "--classifier", files["classifier"]]
    assert main([str(word) for word in words]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_reference_of_another_space_is_refused(files, tmp_path):
    other = tmp_path / "other.safetensors"
    features.save(other, torch.randn(9, 64), "dinov2")
    with pytest.raises(ValueError, match="features are 'dinov2'; allowed: 'classifier'"):
        searched(files | {"reference": other}, tmp_path / "none.json")


def test_the_test_does_not_steer_the_search(files, tmp_path):
    one = searched(files, tmp_path / "one.json")
    other = searched(files, tmp_path / "other.json", test_seed=7000)
    for a, b in zip(one["steps"], other["steps"]):
        assert a.pop("test") != b.pop("test")
        assert a == b


def test_more_steps_start_from_fewer(files, tmp_path):
    """`steps: [3]` gives what `steps: [2, 3]` gives for 3."""
    both = searched(files, tmp_path / "both.json", steps=[2, 3])
    alone = searched(files, tmp_path / "alone.json", steps=[3])
    assert alone["steps"] == both["steps"][1:]
    first = [times for times, _ in both["steps"][1]["evaluations"][: SETTINGS["evaluations"]]]
    assert all(times[:1] == both["steps"][0]["times"] for times in first)


@pytest.mark.parametrize(
    "test_seed, apart", [(911, False), (1079, False), (910, True), (1080, True)]
)
def test_seeds_of_search_and_test_are_apart(test_seed, apart):
    """The search has seeds 1000 to 1079, the test 90 seeds."""
    settings = SETTINGS | {"test_seed": test_seed}
    if apart:
        search.check(settings)
        return
    with pytest.raises(ValueError, match=r"^seeds 1000 to 1079 .* overlap; allowed: seeds apart$"):
        search.run(settings, "none", "none", "none")


MISTAKES = {
    "metric": ("fid", "metric is 'fid'; allowed: fd, kd"),
    "steps": ([1, 2], r"steps is \[1, 2\]"),
    "evaluations": (0, "evaluations >= 1"),
    "low": (50.0, "0 < low < high"),
    "images": (0, "images is 0"),
}


@pytest.mark.parametrize("key", MISTAKES)
def test_mistakes_are_found_before_the_work(key):
    found, message = MISTAKES[key]
    with pytest.raises(ValueError, match=message):
        search.run(SETTINGS | {key: found}, "none", "none", "none")
