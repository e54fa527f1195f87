"""A UNet2DModel of diffusers with its scheduler -> (weights, about).

Its DDPM is the noise parameterization of a process that the scheduler's betas tabulate: at step i
f(x_t, t) is the scheduler's "predicted original sample", unclipped. A network that predicts v is
`edm` with sd = 1, f = alpha x_t + sigma F, and F = -v. Images are in [-1, 1].
"""

import json
import logging
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ect.models.about import Foreign, brief, require, said, wanted
from ect.models.build import buildable, fitted, parameters, single
from ect.networks.unet2d import library
from ect.process import BETAS
from ect.runtime.text import shown_path

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler_config.json"
FILES = ("model_index.json", CONFIG, WEIGHTS, SCHEDULER)  # in the folder, unet/ or scheduler/
STORED = ("F16", "BF16", "F32", "F64")  # floating-point numbers, in words of safetensors
DEFAULTS = {  # of DDPMScheduler and DDIMScheduler, for keys that old files lack
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "prediction_type": "epsilon",
    "variance_type": "fixed_small",
}


def read(source):
    """(weights, about) of a folder, or of a hub's repository by its name, `owner/name` or, at a
    commit, branch or tag, `owner/name@revision`.

    The folder is a DDPMPipeline's (unet/ and scheduler/), or a UNet2DModel's with the scheduler's
    config beside it or in scheduler/. Pickled weights are not read. Raises ValueError.
    """
    library()
    folder = Path(source) if Path(source).exists() else downloaded(source)
    try:
        return converted(folder)
    except ValueError as error:
        raise ValueError(f"{shown_path(source)}: {error}") from None


def downloaded(name):
    """Download a repository's files with the hub's own client; returns their folder."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    files = [f"{folder}{file}" for folder in ("", "unet/", "scheduler/") for file in FILES]
    at = revision or None
    try:
        return Path(snapshot_download(repository, revision=at, allow_patterns=files))
    except Exception as error:  # of the client, the network or the disk
        found = f"no folder, and no download ({said(error)})"
        allowed = "a folder, or a repository of the hub (owner/name, or owner/name@revision)"
        raise ValueError(f"{name}: found {found}; allowed: {allowed}") from None


def converted(folder):
    """(weights, about) of a folder."""
    inner = folder / "unet" if (folder / "unet").is_dir() else folder
    if (folder / "model_index.json").is_file():
        pipeline = settings_in(folder / "model_index.json")["_class_name"]
        wanted("pipeline", pipeline, "DDPMPipeline", "DDIMPipeline")
    config = settings_in(inner / CONFIG)
    betas, kind = chain_of(scheduler_in(folder))
    network, shape = network_of(config, betas["steps"], kind)
    meaning = {"parameterization": "noise", "sd": 0.5}  # sd is not used by f here
    if kind == "v_prediction":
        meaning = {"parameterization": "edm", "sd": 1.0}
    about = {"network": network, "process": "tabulated", "betas": betas, **meaning}
    about |= {"c_noise": "ddpm", "c_in": "one", "shape": shape}
    about |= {"shift": 127.5, "scale": 1 / 127.5}
    require(about)
    require_enough(inner, network, shape)  # before diffusers builds the network
    model = model_in(inner)
    require_answer(model, network, shape)
    return fitted(told_apart(model.state_dict(), network, kind), about), about


def settings_in(path):
    """The JSON object in a file of diffusers."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Foreign(path.name, said(error), "a JSON file of diffusers") from None
    if not isinstance(content, dict) or "_class_name" not in content:
        raise Foreign(path.name, "no _class_name", "a JSON object of diffusers")
    return content


def scheduler_in(folder):
    paths = [folder / "scheduler" / SCHEDULER, folder / SCHEDULER]
    return settings_in(next((path for path in paths if path.is_file()), paths[1]))


def chain_of(scheduler):
    """(betas, what the network predicts) from the scheduler's config."""
    scheduler = DEFAULTS | scheduler
    wanted("scheduler", scheduler["_class_name"], "DDPMScheduler", "DDIMScheduler")
    wanted("beta_schedule", scheduler["beta_schedule"], *BETAS)
    wanted("trained_betas", scheduler["trained_betas"], None)
    wanted("rescale_betas_zero_snr", scheduler["rescale_betas_zero_snr"], False)
    kind = wanted("prediction_type", scheduler["prediction_type"], "epsilon", "v_prediction")
    if str(scheduler["variance_type"]).startswith("learned"):
        raise Foreign("variance_type", repr(scheduler["variance_type"]), "a fixed variance")
    start, end, steps = (
        scheduler[key] for key in ("beta_start", "beta_end", "num_train_timesteps")
    )
    parts = all(type(beta) in (int, float) and 0 < beta < 1 for beta in (start, end))
    if not (parts and type(steps) is int and steps > 1):
        found = f"{brief(start)} to {brief(end)} in {brief(steps)} steps"
        raise Foreign("betas", found, "numbers within (0, 1), steps > 1")
    return {
        "schedule": scheduler["beta_schedule"], "start": start, "end": end, "steps": steps,
    }, kind  # fmt: skip


def network_of(found, steps, kind):
    """(about["network"], shape) from the network's config."""
    wanted("network", found["_class_name"], "UNet2DModel")
    config = {key: value for key, value in found.items() if not key.startswith("_")}
    config.pop("dropout", None)  # the recipe sets it
    wanted("time_embedding_type", config.get("time_embedding_type", "positional"), "positional")
    wanted("class_embed_type", config.get("class_embed_type"), None)
    wanted("center_input_sample", config.get("center_input_sample", False), False)
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outputs != inputs:
        learned = " (a learned variance)" if outputs == 2 * inputs else ""
        raise Foreign("out_channels", f"{outputs}{learned}", f"in_channels = {inputs}")
    blocks = [name for name in config.get("up_block_types", ()) if "Skip" in name]
    if kind == "v_prediction" and blocks:  # what they add to the output cannot change its sign
        raise Foreign("up_block_types", blocks[0], "with v_prediction: blocks without Skip")
    size = config.get("sample_size")
    sizes = size if isinstance(size, list) else [size, size]
    if len(sizes) != 2 or not all(isinstance(side, int) for side in sizes):
        raise Foreign("sample_size", size, "a number of pixels, or two")
    classes = config.pop("num_class_embeds", None) or 0
    network = {"architecture": "unet2d", "config": config, "steps": steps, "classes": classes}
    return network, [inputs, *sizes]


def require_enough(folder, network, shape):
    """Raise `Foreign` unless a folder's weights are floating-point numbers, and about as many as
    the network described has."""
    if not (folder / WEIGHTS).is_file():
        others = sorted(path.name for path in folder.glob("diffusion_pytorch_model*"))
        found = ", ".join(others) or "no weights"
        raise Foreign("weights", found, f"{WEIGHTS}; pickled, sharded and other files are not read")
    with buildable():
        least, count = parameters(network, shape) // 2, 0
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                stored = file.get_slice(name)
                if (kind := stored.get_dtype()) not in STORED:
                    raise Foreign("weights", f"{name} of {kind}", ", ".join(STORED))
                count += math.prod(stored.get_shape())
    except (SafetensorError, OSError) as error:
        raise Foreign("weights", said(error), "a complete file of safetensors") from None
    if count < least:  # to the number it is compared by diffusers, which knows old names
        raise Foreign("weights", f"{count:,}", f"{least:,} or more, as the network described has")


def model_in(folder):
    """The UNet2DModel of a folder, read by diffusers, which knows old names."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)  # checked here instead of warned of
    try:
        model, report = library().UNet2DModel.from_pretrained(
            str(folder), use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True,
            local_files_only=True,
        )  # fmt: skip
    except Exception as error:  # of diffusers, torch or safetensors
        raise Foreign("weights", said(error), "those of the UNet2DModel in config.json") from None
    if names := [*report["missing_keys"], *report["unexpected_keys"]]:
        raise Foreign("weights", f"{len(names)} that do not fit, {names[0]}", "those of the config")
    return model


def require_answer(model, network, shape):
    """Raise `Foreign` unless a network maps an image to finite numbers: diffusers looks at some
    options only then."""
    label = torch.zeros(1, dtype=torch.int64) if network["classes"] else None
    try:
        with torch.inference_mode():
            answer = model.eval()(torch.zeros(1, *shape), 1, label).sample
    except Exception as error:  # of diffusers or torch
        raise Foreign(CONFIG, said(error), "one of a network of images") from None
    if not answer.isfinite().all():
        raise Foreign("output of the network", "NaN or infinity", "finite numbers")


def told_apart(found, network, kind):
    """{name here: tensor}, with a row for "no label", and F = -v if the network predicts v."""
    weights = {f"model.{name}": single(name, value) for name, value in found.items()}
    if network["classes"]:
        rows = weights["model.class_embedding.weight"]
        weights["model.class_embedding.weight"] = torch.cat([rows, torch.zeros_like(rows[:1])])
    if kind == "v_prediction":
        weights |= {
            name: -weights[name] for name in ("model.conv_out.weight", "model.conv_out.bias")
        }
    return weights
