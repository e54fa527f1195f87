"""The metrics: closed forms, plain formulas, and invariances."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ect.evaluation import metrics
from ect.registry import METRICS


def normal(seed, count=300, width=8):
    return np.random.default_rng(seed).standard_normal((count, width))


def whitened(features):
    """The same points moved so that their mean is 0 and their covariance 1, up to rounding."""
    centred = features - features.mean(axis=0)
    root = scipy.linalg.cholesky(np.cov(centred, rowvar=False))
    return scipy.linalg.solve_triangular(root, centred.T, trans="T").T


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.3, 3)), min_size=8, max_size=8))
def test_frechet_of_diagonal_gaussians_is_its_closed_form(axes):
    """|m|^2 + sum (sd - 1)^2, of sets whose sample moments are m, sd^2 and 0, 1."""
    mean, sd = np.array(axes).T
    one, other = whitened(normal(0)) * sd + mean, whitened(normal(1))
    wanted = (mean**2).sum() + ((sd - 1) ** 2).sum()
    assert metrics.frechet(one, other) == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_frechet_equals_the_symmetric_square_root():
    """Tr (A^1/2 B A^1/2)^1/2 by eigenvalues, where clean-fid takes a square root of A B."""
    one, other = normal(0) @ normal(2, 8), 1.5 * normal(1) + 0.3
    a, b = (np.cov(f, rowvar=False) for f in (one, other))
    root = scipy.linalg.sqrtm(a).real
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root)).sum()
    wanted = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross
    assert metrics.frechet(one, other) == pytest.approx(wanted, rel=1e-9)


def plain_precision(features, reference):
    """The definition, one point at a time."""
    spheres = []
    for i, centre in enumerate(reference):
        others = [np.linalg.norm(centre - p) for j, p in enumerate(reference) if j != i]
        spheres.append((centre, sorted(others)[metrics.NEIGHBOURS - 1]))
    inside = [any(np.linalg.norm(p - c) <= radius for c, radius in spheres) for p in features]
    return np.mean(inside)


@pytest.mark.parametrize("shift", [0.0, 1.5, 9.0])
def test_precision_and_recall_equal_their_definition_in_blocks_of_any_size(shift, monkeypatch):
    features, reference = normal(0, 60, 3) + shift, normal(1, 41, 3)
    wanted = plain_precision(features, reference), plain_precision(reference, features)
    for mebibytes in (256, 0.001):  # of the second, a block holds three rows
        monkeypatch.setattr(metrics, "MEBIBYTES", mebibytes)
        found = metrics.precision_recall(features, reference)
        assert found == wanted
    assert metrics.precision_recall(reference, features) == wanted[::-1]


def test_a_set_lies_in_its_own_manifold_and_too_few_points_have_none():
    features = normal(0, 50, 4)
    assert metrics.precision_recall(features, features[::-1]) == (1, 1)
    with pytest.raises(ValueError, match="precision of 3 images; allowed: > 3"):
        metrics.precision_recall(features, features[:3])


def test_inception_score_is_1_of_one_answer_and_the_number_of_classes_of_sure_ones():
    assert metrics.inception_score(np.full((40, 7), 1 / 7)) == pytest.approx(1)
    sure = np.tile(np.eye(5), (20, 1))  # each class as often as each other, in every part
    assert metrics.inception_score(sure) == pytest.approx(5)
    with pytest.raises(ValueError, match="inception_score of 9 images; allowed: >= 10"):
        metrics.inception_score(sure[:9])


def test_inception_score_equals_its_formula():
    logits = normal(0, 57, 6)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for i in range(10):
        part = p[i * 57 // 10 : (i + 1) * 57 // 10]
        divergence = (part * (np.log(part) - np.log(part.mean(axis=0)))).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    assert metrics.inception_score(p) == pytest.approx(np.mean(scores), rel=1e-12)


def test_the_kernel_distance_leaves_numpys_random_state_alone():
    np.random.seed(5)
    wanted = np.random.random(3)
    np.random.seed(5)
    one = metrics.kernel(normal(0, 50), normal(1, 60), subsets=2)
    assert (np.random.random(3) == wanted).all()
    assert metrics.kernel(normal(0, 50), normal(1, 60), subsets=2) == one


@pytest.mark.parametrize("names", [["fd"], ["fd", "kd"], ["fd", "recall"], list(METRICS)])
def test_each_metric_is_measured_where_it_is_named(names):
    one, other = normal(0, 50), normal(1, 60)
    probabilities = np.abs(one) / np.abs(one).sum(axis=1, keepdims=True)
    found = metrics.measures(names, one, other, 2, probabilities)
    assert set(found) == {*names, "images", "reference_images"}
    assert (found["images"], found["reference_images"]) == (50, 60)
    everything = metrics.measures(METRICS, one, other, 2, probabilities)
    assert all(everything[name] == found[name] for name in names)
