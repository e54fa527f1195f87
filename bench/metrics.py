"""What the metrics of stored features cost, and whether other libraries agree:
python bench/metrics.py [--images N] [--threads N]

The features are synthetic: as wide as Inception's, with a decaying spectrum, in clusters; only
their number decides what a metric costs. torchmetrics and torch-fidelity are compared if they are
installed; neither belongs to the environment.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ect.runtime.options import Parser, errors_as_lines, whole

WIDTH, CLASSES = 2048, 1008
METRICS = ["fd", "kd", "precision", "recall", "inception_score"]


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


def of_clean_fid(features, reference):
    """clean-fid's Frechet distance: moments of both sets, then the square root of a matrix."""
    from cleanfid.fid import frechet_distance

    return frechet_distance(*(part for f in (features, reference) for part in moments_of(f)))


def moments_of(features):
    return features.mean(axis=0), np.cov(features, rowvar=False)


def others(features, reference):
    """{other library: the Frechet distance of the same features}."""
    moments = [moments_of(f) for f in (features, reference)]
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
    known, every, cost = metrics.Reference(reference), {}, {}

    def run(what, function, *arguments):
        result, *cost[what] = timed(function, *arguments)
        print(f"{what:34} {cost[what][0]:6.1f} s   {cost[what][1]:6.1f} s of processor time")
        return result

    wanted = [["fd"], ["kd"], ["precision", "recall"], ["inception_score"]]
    for names in [names for names in wanted if set(names) & set(words.metrics)]:
        for summarized, real in {"": reference, ", summarized": known}.items():
            if "precision" in names and real is known:
                run("radii of the reference", lambda: known.radii)
            elif "fd" in names and real is known:
                run("Gaussian of the reference", lambda: known.gaussian)
            what = " and ".join(names) + summarized
            found = run(what, metrics.measures, names, features, real, 100, probabilities)
            assert {name: found[name] for name in names} == {
                name: every.setdefault(name, found[name]) for name in names
            }
    fds = {"clean-fid": run("fd, clean-fid", of_clean_fid, features, reference)}
    fds |= dict(others(features, reference))
    apart = {name: abs(float(fd) / every["fd"] - 1) for name, fd in fds.items()}
    for name, difference in apart.items():
        print(f"Frechet distance, relative difference to {name}: {difference:.1e}")
    print(json.dumps({"images": words.images, "seconds": cost, "apart": apart}))


def parser():
    found = Parser(description=__doc__.split("\n")[0])
    found.add_argument(
        "--images", type=whole(10, 10**7), default=10_000, help="number of features in each set"
    )
    found.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=METRICS, help="fd and others"
    )
    found.add_argument("--threads", type=whole(1, 1024), default=2)
    return found


if __name__ == "__main__":
    words = parser().parse_args()
    if "fd" not in words.metrics:
        parser().error(f"--metrics: found {' '.join(words.metrics)}; allowed: fd, and others")
    from ect.cli.main import limit_threads

    limit_threads(words.threads)
    import numpy as np
    import torch

    from ect.evaluation import metrics

    with errors_as_lines(__file__):
        main(words)
