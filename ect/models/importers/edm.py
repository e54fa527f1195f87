"""Checkpoints of EDM, EDM2 and ECT (`.pkl`) -> (weights, about). Those of EDM2's network, which ECT
tunes on ImageNet, are told by its U-Net and read by `edm2`.

A class in the file is taken to compute what EDM's class of the same name does. EDM's D(x, sigma) is
then f(alpha x, t) at s = sigma. ECT's D in evaluation mode uses sigma - 0.003 in place of sigma in
c_skip and c_out; f is D as trained, which is the identity at sigma = 0.
"""

from typing import Any

import torch

from ect.models.about import Foreign, brief, named, require, said, wanted
from ect.models.build import fitted, single
from ect.models.importers import edm2
from ect.models.importers.edm2 import blocks, sorted_heads
from ect.models.importers.pickles import Node, Reader, scan_file, tensors

S_MIN = 0.02  # the lowest noise level of EDM's VEPrecond, where EDM's sampler ends
WRAPPERS = ("EDMPrecond", "ECMPrecond", "VPPrecond", "VEPrecond")

SONG = {  # options of SongUNet that tell DDPM++ and NCSN++ apart, by EDM's names
    "ddpmpp": {"channel_mult_noise": 1, "encoder_type": "standard", "resample_filter": [1, 1]},
    "ncsnpp": {
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "resample_filter": [1, 3, 3, 1],
    },
}
DEFAULTS: dict[str, dict[str, Any]] = {  # of EDM's constructors
    "SongUNet": {"model_channels": 128, "channel_mult": [1, 2, 2, 2], "num_blocks": 4}
    | {"attn_resolutions": [16], "embedding_type": "positional", "decoder_type": "standard"}
    | SONG["ddpmpp"],
    "DhariwalUNet": {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "num_blocks": 3}
    | {"attn_resolutions": [32, 16, 8]},
}
COMMON = {
    "img_resolution", "in_channels", "out_channels", "label_dim", "augment_dim", "channel_mult_emb",
}  # fmt: skip
WHOLE = COMMON | {"model_channels", "num_blocks"}
UNUSED = {"dropout", "label_dropout"}  # they matter in training only


def network_of(model):
    """(about["network"], shape) from EDM's U-Net and the arguments that made it."""
    kind = wanted("network", model.kind, *DEFAULTS)
    options = (
        {"label_dim": 0, "augment_dim": 0, "channel_mult_emb": 4}
        | DEFAULTS[kind]
        | dict(model._init_kwargs)
    )
    for name in sorted(set(options) - set(DEFAULTS[kind]) - COMMON - UNUSED):
        raise Foreign(f"{kind}'s arguments", name, "those of EDM's class")
    for name in sorted(WHOLE & set(options)):
        if type(options[name]) is not int:
            raise Foreign(f"{kind}'s arguments: {name}", brief(options[name]), "a whole number")
    if model._init_args:
        raise Foreign(f"{kind}'s arguments", f"{len(model._init_args)} without names", "names")
    wanted("channel_mult_emb", options["channel_mult_emb"], 4)
    wanted("out_channels", options["out_channels"], options["in_channels"])
    architecture, embedding = "adm", "positional"
    if kind == "SongUNet":
        wanted("decoder_type", options["decoder_type"], "standard")
        form = {key: options[key] for key in SONG["ddpmpp"]}
        wanted("SongUNet's form", form, *SONG.values())
        architecture = next(name for name, value in SONG.items() if value == form)
        embedding = wanted("embedding_type", options["embedding_type"], "positional", "fourier")
    network = {
        "architecture": architecture,
        "channels": options["model_channels"],
        "multipliers": list(options["channel_mult"]),
        "blocks": options["num_blocks"],
        "attention": list(options["attn_resolutions"]),
        "embedding": embedding,
        "classes": options["label_dim"],
    }
    if options["augment_dim"]:
        network["augment_labels"] = options["augment_dim"]
    return network, [options["in_channels"], options["img_resolution"], options["img_resolution"]]


def meaning_of(wrapper):
    """The part of `about` that says how F makes D, from EDM's preconditioning module."""
    kind = wrapper.kind
    about = {"process": "ve", "parameterization": "edm", "c_noise": "log_s", "c_in": "scaled"}
    if kind in ("EDMPrecond", "ECMPrecond"):
        return about | {"sd": float(wrapper.sigma_data)}
    about["parameterization"] = "noise"
    if kind == "VEPrecond":  # sd is not used; 0.5 is that of EDM's data
        lowest = max(float(vars(wrapper).get("sigma_min", S_MIN)), 0.002)  # as EDM's sampler does
        return about | {"c_noise": "log_half_s", "c_in": "one", "sd": 0.5, "s_min": lowest}
    for name, value in {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}.items():
        wanted(name, getattr(wrapper, name), value)
    return about | {"process": "vp_linear", "c_noise": "vp", "sd": 1.0}


def places(network, resolution):
    """Pairs (name here, EDM's name) of the U-Net's blocks and single layers."""
    adm = network["architecture"] == "adm"
    sizes = ["{0}x{0}".format(resolution >> level) for level in range(len(network["multipliers"]))]
    pyramid = [f"enc.{size}_aux_residual" for size in sizes[1:]]
    yield "stem", f"enc.{sizes[0]}_conv"
    yield "head_norm", "out_norm" if adm else f"dec.{sizes[0]}_aux_norm"
    yield "head", "out_conv" if adm else f"dec.{sizes[0]}_aux_conv"
    yield from (("embedding.first", "map_layer0"), ("embedding.second", "map_layer1"))
    yield from (("embedding.label", "map_label"), ("embedding.augment", "map_augment"))
    yield from ((f"pyramid.{n}.conv", name) for n, name in enumerate(pyramid))
    yield from blocks(network, resolution)


INSIDE = {"norm2": "attention.norm", "qkv": "attention.qkv", "proj": "attention.proj"}


def renamed(found, network, resolution):
    """{name here: tensor} from EDM's, without the fixed filters."""
    ours, weights = {theirs: name for name, theirs in places(network, resolution)}, {}
    for name, value in found.items():
        parts = name.split(".")
        size = 2 if parts[0] in ("enc", "dec") else 1
        layer, inside, leaf = ".".join(parts[:size]), parts[size:-1], parts[-1]
        if name == "map_noise.freqs":
            weights["embedding.frequencies"] = 2 * torch.pi * single(name, value)
        if parts[0] == "map_noise" or leaf == "resample_filter":
            continue
        if layer not in ours:
            raise Foreign("weight", name, "those of the network that the arguments describe")
        if inside == ["qkv"]:
            adm, channels = network["architecture"] == "adm", value.shape[0] // 3
            value = sorted_heads(value, channels // 64 if adm else 1)
        inside = [INSIDE.get(part, part) for part in inside]
        weights[".".join([ours[layer], *inside, leaf])] = single(name, value)
    return weights


def described(content):
    """What a pickle holds, in words."""
    if isinstance(content, Node):
        return f"a bare network of class {content.kind!r}"
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(brief, list(content)[:4])) or 'nothing'}"
    return type(content).__name__


def converted(content):
    """(weights, about) from what the pickle holds."""
    wrapper = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(wrapper, Node):
        raise Foreign("pickle", described(content), "a dict with a network at 'ema', as EDM saves")
    if "unet" in vars(wrapper).get("_modules", {}):
        return edm2.converted(content)
    wanted("class at 'ema'", wrapper.kind, *WRAPPERS)
    model = vars(wrapper)["_modules"]["model"]
    network, shape = network_of(model)
    about = {"network": network, **meaning_of(wrapper), "shape": shape}
    about |= {"shift": 127.5, "scale": 1 / 127.5}
    require(about)  # before its sizes are used
    weights = fitted(renamed(tensors(model), network, shape[1]), about)
    if wrapper.kind == "VEPrecond":  # its F predicts -eps
        weights |= {name: -weights[name] for name in ("head.weight", "head.bias")}
    return weights, about


def read(path):
    """(weights, about) of the network at 'ema' in a `.pkl` file of EDM, EDM2 or ECT.

    Raises ValueError for any other content, without running code in it.
    """
    with open(path, "rb") as file, named(path):
        try:
            scan_file(file)
            return converted(Reader(file).load())
        except Foreign:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            found = f"damaged content ({said(error)})"
            raise Foreign("pickle", found, "a complete .pkl file of EDM, EDM2 or ECT") from None
