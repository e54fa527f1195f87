"""Distances between two sets of features, and scores of one set, by functions of libraries:
clean-fid's distances, scikit-learn's neighbours, scipy's relative entropy."""

import numpy as np

SUBSET_SIZE = 1000  # clean-fid's default
NEIGHBOURS = 3  # k of Kynkaanniemi et al. 2019
SPLITS = 10  # of the Inception score, as Salimans et al. 2016 published it
MEBIBYTES = 256  # of one block of distances in memory


def frechet(features, reference):
    """The Frechet distance of the Gaussians fitted to two feature sets (N, D) and (M, D); FID where
    the features are Inception's. NaN where a moment is not finite."""
    from cleanfid.fid import frechet_distance

    moments = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (features, reference)]
    if not all(np.isfinite(moment).all() for both in moments for moment in both):
        return float("nan")
    (mean, covariance), (mean_reference, covariance_reference) = moments
    return float(frechet_distance(mean, covariance, mean_reference, covariance_reference))


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
    (N, D) that lie in the reference's manifold, and of the reference (M, D) that lie in theirs.

    A set's manifold is the union of spheres around its points; the radius of each is the distance
    to the point's third nearest neighbour. Distances are computed in blocks, never as one (N, M).
    """
    from sklearn.metrics import pairwise_distances_chunked

    radii, reference_radii = _radii(features), _radii(reference)
    covered = np.zeros(len(reference), dtype=bool)

    def inside(distances, start):
        radius = radii[start : start + len(distances), None]
        np.logical_or(covered, (distances <= radius).any(axis=0), out=covered)
        return (distances <= reference_radii).any(axis=1)

    blocks = pairwise_distances_chunked(
        features, reference, reduce_func=inside, working_memory=MEBIBYTES
    )
    precision = float(np.concatenate(list(blocks)).mean())
    return precision, float(covered.mean())


def _radii(features):
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
    """{name: finite value} of the metrics named (the kernel distance over `subsets` subsets), and
    the sizes of the two sets. `probabilities`, p(class | image), are for the Inception score."""
    found = {}
    if "fd" in names:
        found["fd"] = frechet(features, reference)
    if "kd" in names:
        found["kd"] = kernel(features, reference, subsets)
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
