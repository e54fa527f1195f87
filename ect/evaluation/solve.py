"""Trajectories of a pretrained model, solved once and kept, for mid-training.

CMT (Hu, Lai, Mitsufuji and Ermon 2025, arXiv 2509.24526) solves the ODE of a pretrained model from
noise, by DPM-Solver++(2M) at noise levels that are evenly spaced in log-SNR, and trains f to lead
from every point of a trajectory to its end: d(f(x_t), x_0), its loss L_CMT-CM. Noise and class of
a trajectory depend on (seed, its number) alone; images that are measured have other noise.
"""

import time
from pathlib import Path

import torch

from ect import sampler
from ect.data import trajectories
from ect.models import build
from ect.models.draw import labels_of
from ect.runtime import checkpoint, device, record
from ect.runtime.seeds import seed_of
from ect.runtime.text import shown
from ect.runtime.versions import setting

S_MIN = 0.002  # the lowest level, unless the model says its own


def run(settings, model, out):
    """Write trajectories.safetensors, `count` trajectories of `steps` points and an end each, and
    run.json. Raises `FloatingPointError` where a point is not finite, `ValueError` for a model of
    latents."""
    started, out = time.monotonic(), Path(out)
    _require_untuned(model)
    f, process, about = build.load_model(model)
    if "latents" in about:
        raise ValueError("model: found one of a VAE's latents; allowed: one of pixels")
    levels = sampler.even(settings["steps"], about.get("s_min", S_MIN))
    seeds = [seed_of(settings["seed"], "trajectory", i) for i in range(settings["count"])]
    labels = labels_of(seeds, about)
    kept = {key: about[key] for key in ("shape", "shift", "scale")}
    kept["classes"] = setting(about["network"], "classes")
    batches = solved(f, process, about, levels, seeds, labels, settings)
    file = out / "trajectories.safetensors"
    numbers = [0] * len(seeds) if labels is None else labels.tolist()
    trajectories.write(file, kept, levels, numbers, about["shape"], batches)
    made = record.job_record(settings, [model], started, [file], stage="trajectories")
    checkpoint.write_json(out / "run.json", made)


def _require_untuned(model):
    """Raise `ValueError` for a model that was tuned, by the record beside it: it is no denoiser."""
    schedule = ((record.of(model) or {}).get("settings") or {}).get("schedule")
    name = schedule.get("map") if isinstance(schedule, dict) else None
    if name not in (None, "zero"):
        found = f"found {shown(model)}, tuned with the map {shown(name, 60)} by its record"
        raise ValueError(f"model: {found}; allowed: a pretrained one")


def solved(f, process, about, levels, seeds, labels, settings):
    """The points (n, K + 1, C, H, W) of trajectories at `levels`, a batch at a time, on the CPU;
    `labels` (N,) are their classes, or None."""
    from tqdm import tqdm

    precision, size = setting(settings, "precision"), settings["batch"]
    teacher = (build.compiled(f) if setting(settings, "compile") else f).denoiser()
    for start in tqdm(range(0, len(seeds), size), disable=None, unit="batch"):
        part = slice(start, start + size)
        noise = device.to_device(sampler.noise(seeds[part], 1, about["shape"])[0])
        given = teacher
        if labels is not None:
            given = teacher.conditioned_on(device.to_device(labels[part]))
        with torch.no_grad(), device.deterministic(), device.precision(precision):
            path = sampler.dpm_path(given, process, noise * levels[0], levels)
            points = torch.stack([y.to(torch.float32) for y in path], dim=1).cpu()
        if not points.isfinite().all():
            found = f"points that are not finite, from noise {start} on, computed in {precision}"
            raise FloatingPointError(f"trajectories: found {found}; allowed: finite ones")
        yield points
