"""The metrics: closed forms, plain formulas, and invariances."""

from collections import Counter

import numpy as np
import pytest
import scipy.linalg
from cleanfid.fid import frechet_distance
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


def of_clean_fid(one, other):
    """clean-fid's distance: a square root of the product of covariances, by scipy's `sqrtm`."""
    return frechet_distance(
        *(part for f in (one, other) for part in (f.mean(0), np.cov(f, rowvar=False)))
    )


def by_singular_values(one, other):
    """Without any covariance: Tr (A B)^1/2 is the sum of the singular values of X Y^T, where A =
    X^T X and B = Y^T Y."""
    x, y = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (one, other))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return ((one.mean(0) - other.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross


# Sizes of both sets and width: of full rank, of low rank in one set, in the other, and in both.
SIZES = [(300, 400, 8), (90, 80, 64), (40, 400, 64), (400, 40, 64), (40, 50, 64), (2, 3, 5)]


@pytest.mark.parametrize("n, m, width", SIZES)
def test_frechet_is_that_of_singular_values_and_clean_fids(n, m, width):
    """Where a rank is low, clean-fid is not the judge: roots of what rounding leaves of eigenvalues
    that are 0 add up to 1e-8 and more of its distance."""
    one = normal(0, n, width) @ normal(2, width, width)
    other = 1.5 * normal(1, m, width) + 0.3
    found = metrics.frechet(one, other)
    assert found == pytest.approx(by_singular_values(one, other), rel=1e-12)
    full = min(n, m) > width
    assert found == pytest.approx(of_clean_fid(one, other), rel=1e-10 if full else 1e-5)


@pytest.mark.parametrize("n, m, width", SIZES)
def test_laws_of_the_frechet_distance(n, m, width):
    """Of one set 0; that of a translation its square; that of a scaling (1 - c)^2 of the variance
    and the mean's square; symmetric; and with the square of a scaling of both."""
    one, other = normal(0, n, width), normal(1, m, width) @ normal(2, width, width)
    variance, shift = np.trace(np.cov(one, rowvar=False)), normal(3, 1, width)
    size = variance + (one.mean(0) ** 2).sum()
    assert metrics.frechet(one, one) == pytest.approx(0, abs=1e-12 * size)
    assert metrics.frechet(one, one + shift) == pytest.approx((shift**2).sum(), rel=1e-10)
    assert metrics.frechet(3 * one, one) == pytest.approx(4 * size, rel=1e-10)
    there, back = metrics.frechet(one, other), metrics.frechet(other, one)
    assert there == pytest.approx(back, rel=1e-10)
    assert metrics.frechet(7 * one, 7 * other) == pytest.approx(49 * there, rel=1e-10)


@pytest.mark.parametrize("names", [["fd"], ["precision"], list(METRICS)])
def test_a_reference_computes_its_part_once_and_gives_the_same_numbers(names, monkeypatch):
    one, two, other = normal(0, 50), normal(3, 50), normal(1, 60)
    chances, counts = np.full((50, 3), 1 / 3), Counter()
    wanted = [metrics.measures(names, each, other, 2, chances) for each in (one, two)]
    for name in ("root_of", "radii_of"):
        whole = getattr(metrics, name)

        def counted(points, *more, name=name, whole=whole):
            counts[name, points is other] += 1
            return whole(points, *more)

        monkeypatch.setattr(metrics, name, counted)
    reference = metrics.Reference(other)
    found = [metrics.measures(names, each, reference, 2, chances) for each in (one, two)]
    assert found == wanted
    assert counts["root_of", False] == ("fd" in names)
    assert counts["radii_of", True] == ("precision" in names)


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
