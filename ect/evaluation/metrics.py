"""Distances between two sets of features, and scores of one set: the Frechet distance by symmetric
eigenvalues, the others by functions of libraries: clean-fid's kernel distance, scikit-learn's
neighbours, scipy's relative entropy."""

import functools
from typing import NamedTuple

import numpy as np

SUBSET_SIZE = 1000  # clean-fid's default
NEIGHBOURS = 3  # k of Kynkaanniemi et al. 2019
SPLITS = 10  # of the Inception score, as Salimans et al. 2016 published it
MEBIBYTES = 256  # of one block of distances in memory


class Gaussian(NamedTuple):
    """The Gaussian fitted to features (N, D), as far as a Frechet distance needs it."""

    mean: np.ndarray  # (D,)
    variance: float  # in all: the trace of the covariance
    root: np.ndarray  # (D, K): root @ root.T is the covariance, K = min(N - 1, D) bounds its rank


class Reference:
    """Features (M, D) that others are compared with, and what metrics derive from them alone: each
    part is computed when it is first needed, or was stored (`ect/evaluation/summary.py`)."""

    def __init__(self, features):
        self.features = features

    def __len__(self):
        return len(self.features)

    @classmethod
    def of(cls, features):
        """The reference of features (M, D); a reference is its own."""
        return features if isinstance(features, cls) else cls(features)

    @functools.cached_property
    def gaussian(self):
        mean, covariance = moments(self.features)
        rank = min(len(self) - 1, len(mean))
        return Gaussian(mean, float(np.trace(covariance)), root_of(covariance, rank))

    @functools.cached_property
    def radii(self):
        return radii_of(self.features)


def moments(features):
    """Mean (D,) and covariance (D, D) of features (N, D)."""
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / np.float64(len(features) - 1)


def root_of(covariance, rank):
    """R (D, K) with R R^T = `covariance` (D, D), from its K = `rank` largest eigenvalues; NaN where
    the covariance is not finite."""
    if not np.isfinite(covariance).all():
        return np.full_like(covariance, np.nan)
    values, vectors = np.linalg.eigh(covariance)
    return vectors[:, -rank:] * np.sqrt(values[-rank:].clip(min=0))


def frechet(features, reference):
    """The Frechet distance of the Gaussians fitted to features (N, D) and to a reference, which is
    features (M, D) or a `Reference`; FID where the features are Inception's. NaN where a moment is
    not finite.

    With S = R R^T for the reference, S C has the eigenvalues of R^T C R, and those of its square
    root are their roots: real, from a symmetric matrix. Covariances of N and M points have ranks of
    at most N - 1 and M - 1. Further eigenvalues are rounding, whose roots would not be small.
    """
    mean, covariance = moments(features)
    reference = Reference.of(reference)
    other, rank = reference.gaussian, min(len(features), len(reference)) - 1
    cross = other.root.T @ covariance @ other.root
    if not all(np.isfinite(part).all() for part in (mean, *other, covariance, cross)):
        return float("nan")
    values = np.linalg.eigvalsh(cross)[-rank:].clip(min=0)
    apart = mean - other.mean
    trace = np.trace(covariance) + other.variance - 2 * np.sqrt(values).sum()
    return float(apart @ apart + trace)


def kernel(features, reference, subsets=100, seed=0):
    """The kernel distance (polynomial kernel of degree 3): KID where the features are Inception's.

    clean-fid draws its subsets from numpy's global state, which is seeded and restored here.
    """
    from cleanfid.fid import kernel_distance

    before = np.random.get_state()
    np.random.seed(seed)
    try:
        return float(kernel_distance(features, reference, subsets, SUBSET_SIZE))
    finally:
        np.random.set_state(before)


def precision_recall(features, reference):
    """(precision, recall) of Kynkaanniemi et al. 2019, equations 1 and 2: the share of `features`
    (N, D) that lie in the reference's manifold, and of the reference (M, D), which may be a
    `Reference`, that lie in theirs.

    A set's manifold is the union of spheres around its points; the radius of each is the distance
    to the point's third nearest neighbour. Distances are computed in blocks, never as one (N, M).
    """
    from sklearn.metrics import pairwise_distances_chunked

    reference = Reference.of(reference)
    radii, reference_radii = radii_of(features), reference.radii
    covered = np.zeros(len(reference), dtype=bool)

    def inside(distances, start):
        radius = radii[start : start + len(distances), None]
        np.logical_or(covered, (distances <= radius).any(axis=0), out=covered)
        return (distances <= reference_radii).any(axis=1)

    blocks = pairwise_distances_chunked(
        features, reference.features, reduce_func=inside, working_memory=MEBIBYTES
    )
    precision = float(np.concatenate(list(blocks)).mean())
    return precision, float(covered.mean())


def radii_of(features):
    """The distance (N,) of each point of features (N, D) to its third nearest neighbour."""
    from sklearn.neighbors import NearestNeighbors

    if len(features) <= NEIGHBOURS:
        raise ValueError(f"precision of {len(features)} images; allowed: > {NEIGHBOURS}")
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(features)
    return nearest.kneighbors()[0][:, -1]  # without arguments, no point is its own neighbour


def inception_score(probabilities):
    """exp of the mean relative entropy of p(class | image), (N, classes), to its mean p(class);
    the mean over ten parts of the set, in order (Salimans et al. 2016)."""
    from scipy.special import rel_entr

    if len(probabilities) < SPLITS:
        raise ValueError(f"inception_score of {len(probabilities)} images; allowed: >= {SPLITS}")
    cuts = [i * len(probabilities) // SPLITS for i in range(SPLITS + 1)]
    parts = np.split(probabilities, cuts[1:-1])
    return float(np.mean([np.exp(rel_entr(p, p.mean(axis=0)).sum(1).mean()) for p in parts]))


@np.errstate(all="ignore")  # what is not finite is named below
def measures(names, features, reference, subsets, probabilities=None):
    """{name: finite value} of the metrics named (the kernel distance over `subsets` subsets) of
    features (N, D) against a reference, as `frechet` takes it, and the sizes of the two sets.
    `probabilities`, p(class | image), are for the Inception score."""
    found, reference = {}, Reference.of(reference)
    if "fd" in names:
        found["fd"] = frechet(features, reference)
    if "kd" in names:
        found["kd"] = kernel(features, reference.features, subsets)
    if {"precision", "recall"} & set(names):
        both = zip(("precision", "recall"), precision_recall(features, reference))
        found |= {name: value for name, value in both if name in names}
    if "inception_score" in names:
        found["inception_score"] = inception_score(probabilities)
    for name, value in found.items():
        require_finite(name, value, features, reference)
    return found | {"images": len(features), "reference_images": len(reference)}


def require_finite(name, value, features, reference):
    """Raise `FloatingPointError` where a metric is NaN or infinite."""
    if not np.isfinite(value):
        raise FloatingPointError(
            f"{name} is {value} for {len(features)} images and {len(reference)} of reference;"
            " allowed: a finite number, of more images or of other features"
        )
