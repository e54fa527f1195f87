"""Distances between two sets of features, through clean-fid's own functions."""

import numpy as np

SUBSET_SIZE = 1000  # clean-fid's own


def frechet(features, reference):
    """The Frechet distance of the Gaussians fitted to two feature sets (N, D) and (M, D); FID where
    the features are Inception's."""
    from cleanfid.fid import frechet_distance

    moments = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (features, reference)]
    (mean, covariance), (mean_reference, covariance_reference) = moments
    return float(frechet_distance(mean, covariance, mean_reference, covariance_reference))


def kernel(features, reference, subsets=100, seed=0):
    """The kernel distance (polynomial kernel of degree 3): KID where the features are Inception's.

    clean-fid draws its subsets from numpy's global state, which is seeded and put back here.
    """
    from cleanfid.fid import kernel_distance

    before = np.random.get_state()
    np.random.seed(seed)
    try:
        return float(kernel_distance(features, reference, subsets, SUBSET_SIZE))
    finally:
        np.random.set_state(before)


def distances(features, reference, subsets):
    """Both distances (the kernel distance over `subsets` subsets) and the sizes of the two sets."""
    return {
        "fd": frechet(features, reference),
        "kd": kernel(features, reference, subsets),
        "images": len(features),
        "reference_images": len(reference),
    }
