"""What the metrics of stored features cost, and whether other libraries agree:
PYTHONPATH=. python bench/metrics.py [--images N] [--threads N]

The features are synthetic: as wide as Inception's, with a decaying spectrum, in clusters; only
their number decides what a metric costs. torchmetrics and torch-fidelity are compared if they are
installed; neither belongs to the environment.
"""

import argparse
import importlib.util
import json
import time

WIDTH, CLASSES = 2048, 1008


def made_up(seed, count, shift):
    """Features (N, 2048), float64: clusters of decaying spectrum, all moved by `shift`."""
    generator = np.random.default_rng(seed)
    scale = np.arange(1, WIDTH + 1) ** -0.5
    centres = np.random.default_rng(0).standard_normal((10, WIDTH))
    points = generator.standard_normal((count, WIDTH))
    points += centres[generator.integers(10, size=count)]
    return np.abs(points + shift) * scale


def timed(function, *words):
    """(result of a call, wall-clock seconds, processor seconds)."""
    started, spent = time.perf_counter(), time.process_time()
    result = function(*words)
    return result, time.perf_counter() - started, time.process_time() - spent


def others(features, reference):
    """{library: the Frechet distance of the same features}."""
    moments = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (features, reference)]
    from cleanfid.fid import frechet_distance

    yield "clean-fid", frechet_distance(*moments[0], *moments[1])
    if importlib.util.find_spec("torchmetrics"):
        from torchmetrics.image.fid import _compute_fid

        yield "torchmetrics", _compute_fid(*(torch.tensor(x) for pair in moments for x in pair))
    if importlib.util.find_spec("torch_fidelity"):
        from torch_fidelity.metric_fid import fid_statistics_to_metric

        pair = [dict(zip(("mu", "sigma"), each)) for each in moments]
        yield "torch-fidelity", fid_statistics_to_metric(*pair, False).popitem()[1]


def main(words):
    features, reference = made_up(1, words.images, 0.05), made_up(2, words.images, 0.0)
    probabilities = np.random.default_rng(3).dirichlet(np.full(CLASSES, 0.05), words.images)
    every, spent, work = {}, 0.0, 0.0
    for names in (["fd"], ["kd"], ["precision", "recall"], ["inception_score"]):
        found, seconds, processor = timed(
            metrics.measures, names, features, reference, 100, probabilities
        )
        every |= {name: found[name] for name in names}
        spent, work = spent + seconds, work + processor
        print(f"{' and '.join(names):22} {seconds:6.1f} s   {processor:6.1f} s of processor time")
    print(f"{'all':22} {spent:6.1f} s   {work:6.1f} s of processor time")
    apart = {name: abs(float(fd) / every["fd"] - 1) for name, fd in others(features, reference)}
    for name, difference in apart.items():
        print(f"Frechet distance, relative difference to {name}: {difference:.1e}")
    print(json.dumps({"images": words.images, "seconds": spent, "processor": work, "apart": apart}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000, help="number of features in each set")
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    from ect.cli.main import limit_threads

    limit_threads(words.threads)
    import numpy as np
    import torch

    from ect.evaluation import metrics

    main(words)
