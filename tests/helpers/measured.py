"""The metrics of a run."""

from ect.runtime import checkpoint, record

ONE_STEP = {"kind": "multistep", "options": {"times": []}, "images": 20, "batch": 20, "seed": 0}


def measure(out, model):
    cell = {
        "pretrain": "ve", "process": "ve", "parameterization": "edm", "kimg": 1,
        "schedule": model.schedule, "recipe": model.recipe, "tune_kimg": 1, "seed": model.seed,
        "sampler": "one_step", "label": "1 step", "nfe": 1,
    }  # fmt: skip
    facts = {"images": 20, "reference_images": 297, "features": "classifier", "cell": cell}
    with record.recorded(
        out / "metrics.json", lambda: ("evaluate", {}, [], [out / "metrics.json"])
    ):
        checkpoint.write_json(out / "metrics.json", facts | {"fd": 30.5 - model.seed, "kd": 0.25})
