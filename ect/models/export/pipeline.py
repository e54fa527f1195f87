"""A model as a folder that diffusers opens as its ConsistencyModelPipeline.

`unet/` holds the network: a UNet2DModel where it is one, else ours, as code beside its weights.
`scheduler/` holds the process, the parameterization and multistep sampling, as code too: that of
diffusers knows one process and one parameterization, and rounds otherwise.
"""

import hashlib

from ect.models import steps
from ect.models.about import Foreign
from ect.models.export.joined import Joined
from ect.networks.style import STYLES
from ect.runtime import checkpoint
from ect.runtime.versions import setting

WEIGHTS = "diffusion_pytorch_model.safetensors"
# (module, name) of the class of an architecture.
CLASSES = {**dict.fromkeys(STYLES, ("networks.unet", "UNet")), "edm2": ("networks.edm2", "EDM2")}


def require(about):
    """Raise `Foreign` for a model that such a pipeline cannot express."""
    shape, network = about["shape"], about["network"]
    if "latents" in about:
        raise Foreign("model", "one of a VAE's latents", "one of pixels, for --diffusers")
    if setting(network, "span"):
        raise Foreign("network.span", "a flow map", "a network of one time, for --diffusers")
    if shape[1] != shape[2]:
        found = f"images of {shape[1]} x {shape[2]}"
        raise Foreign("shape", found, "squares, as ConsistencyModelPipeline draws them")


def write(folder, weights, about, samplers, header):
    """Write model_index.json, unet/ and scheduler/ into a folder. `samplers` are those of the
    model's study, `header` is the first line of the files of code."""
    index = {"_class_name": "ConsistencyModelPipeline"}
    index["unet"] = write_network(folder / "unet", weights, about, header)
    index["scheduler"] = write_scheduler(folder / "scheduler", about, samplers, header)
    checkpoint.write_json(folder / "model_index.json", index)


def write_network(folder, weights, about, header):
    """Write the network's weights, config and code; returns [library, class]."""
    folder.mkdir()
    network = about["network"]
    classes = setting(network, "classes") or None
    config = {"sample_size": about["shape"][1], "in_channels": about["shape"][0]}
    if network.get("architecture") == "unet2d":
        config = network["config"] | config | {"num_class_embeds": classes}
        weights, library = as_unet2d(weights, classes), ["diffusers", "UNet2DModel"]
    else:
        options = {key: value for key, value in network.items() if key != "architecture"}
        module, name = CLASSES[network.get("architecture", "ddpmpp")]
        if name == "UNet" and "architecture" in network:
            options["architecture"] = network["architecture"]
        config |= {"options": options, "num_class_embeds": classes}
        config["trained_classes"] = about.get("trained_classes")
        parts = [(module, name), ("models.export.unet_part", "ECTNetwork")]
        last = f"\n\nECTNetwork.build = {name}\n"
        library = write_code(folder, "ECTNetwork", parts, header, last)
        weights = {f"network.{key}": value for key, value in weights.items()}
    checkpoint.write_json(folder / "config.json", {"_class_name": library[1]} | config)
    checkpoint.save_with(folder / WEIGHTS, weights, {"format": "pt"})
    return library


def as_unet2d(weights, classes):
    """The weights by diffusers' names, without the row for no class."""
    rows = "class_embedding.weight"
    renamed = {key.removeprefix("model."): value for key, value in weights.items()}
    return renamed | ({rows: renamed[rows][:classes].contiguous()} if classes else {})


def write_scheduler(folder, about, samplers, header):
    """Write the scheduler's config and code; returns [library, class]."""
    folder.mkdir()
    parts = [("models.export.scheduler_part", "ECTScheduler")]
    library = write_code(folder, "ECTScheduler", parts, header)
    kept = ("process", "betas", "parameterization", "sd", "shift", "scale")
    config = {"_class_name": library[1]} | {key: about[key] for key in kept if key in about}
    config |= {"c_noise": setting(about, "c_noise"), "c_in": setting(about, "c_in")}
    config |= {"times": times_of(samplers), "boundary": boundary_of(samplers)}
    if about["network"].get("architecture") == "unet2d":
        config["last_label"] = about["network"]["steps"] - 1
    checkpoint.write_json(folder / "scheduler_config.json", config)
    return library


def times_of(samplers):
    """{number of steps, as text: noise levels after the first}: the study's, else ECT's; none
    where the study has two meanings of a number."""
    found = {}
    for count in sorted({*steps.ECT, *map(steps.count, samplers.values())}):
        try:
            found[str(count)] = steps.chosen(samplers, count).options["times"]
        except ValueError:  # two samplers of so many steps
            continue
    return found


def boundary_of(samplers):
    """The level at which f(x) = x: `sigma_min` of the study's samplers. Raises `Foreign` where they
    differ in it: a scheduler has one."""
    found = sorted({options.get("sigma_min", 0.0) for options in samplers.values()})
    if len(found) > 1:
        listed = ", ".join(f"{value:g}" for value in found)
        raise Foreign("sigma_min", f"{listed} in the study's samplers", "one, for --diffusers")
    return found[0] if found else 0.0


def write_code(folder, name, parts, header, last=""):
    """Write what `parts`, (module, name), reach as one file; returns [library, class]. Its name
    holds its digest: diffusers copies the code of all models into one folder."""
    joined = Joined()
    for part in parts:
        joined.take(*part)
    text = f"# {header}.\n# Its definitions are those of ect/, word for word (Apache-2.0).\n\n"
    text += joined.text() + last
    module = f"{name.lower()}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return [module, name]
