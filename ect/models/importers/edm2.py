"""Networks of EDM2's and ECT's imgnet checkpoints -> (weights, about); `edm` reads the file.

Theirs is the Precond of EDM2: D(x, sigma) = f(x, t) at t = sigma, with sd = sigma_data. u(sigma),
which only pretraining uses, is left. A network of latents is read too; `latents` in `about` says
how a VAE's were scaled and shifted to be its images, channel by channel.
"""

from typing import Any

from ect.models.about import Foreign, brief, require, wanted
from ect.models.build import fitted
from ect.models.importers.pickles import Node, tensors

DEFAULTS: dict[str, Any] = {  # of the constructor of EDM2's UNet
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "num_blocks": 3,
    "attn_resolutions": [16, 8],
}
FIXED: dict[str, Any] = {  # options that no released network changes
    "channel_mult_noise": None,
    "channel_mult_emb": None,
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "resample_filter": [1, 1],
    "channels_per_head": 64,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
}
UNUSED = {"dropout", "dropout_res"}  # they matter in training only
WHOLE = ("img_resolution", "img_channels", "label_dim", "model_channels", "num_blocks")
PARTS = {"unet", "logvar_fourier", "logvar_linear"}
PIXELS, LATENTS = "StandardRGBEncoder", "StabilityVAEEncoder"
LAYERS = {  # names of EDM2 -> names here
    "emb_fourier.freqs": "embedding.waves.frequencies",
    "emb_fourier.phases": "embedding.waves.phases",
    "emb_noise.weight": "embedding.noise.weight",
    "emb_label.weight": "embedding.label.weight",
    "out_conv.weight": "head.weight",
    "out_gain": "gain",
}
INSIDE = {  # of a block
    "emb_gain": "gain",
    "conv_res0.weight": "conv0.weight",
    "emb_linear.weight": "affine.weight",
    "conv_res1.weight": "conv1.weight",
    "conv_skip.weight": "skip.weight",
    "attn_qkv.weight": "attention.qkv.weight",
    "attn_proj.weight": "attention.proj.weight",
}


def network_of(unet):
    """(about["network"], shape) from EDM2's U-Net and the arguments that made it."""
    wanted("network", unet.kind, "UNet")
    if unet._init_args:
        raise Foreign("UNet's arguments", f"{len(unet._init_args)} without names", "names")
    options = DEFAULTS | FIXED | dict(unet._init_kwargs)
    for name in sorted(set(options) - set(DEFAULTS) - set(FIXED) - UNUSED - set(WHOLE)):
        raise Foreign("UNet's arguments", name, "those of EDM2's class")
    for name in WHOLE:
        if type(options.get(name)) is not int:
            raise Foreign(f"UNet's arguments: {name}", brief(options.get(name)), "a whole number")
    for name, value in FIXED.items():
        wanted(f"UNet's arguments: {name}", options[name], value)
    network = {
        "architecture": "edm2",
        "channels": options["model_channels"],
        "multipliers": list(options["channel_mult"]),
        "blocks": options["num_blocks"],
        "attention": list(options["attn_resolutions"]),
        "classes": options["label_dim"],
    }
    return network, [options["img_channels"], *[options["img_resolution"]] * 2]


def blocks(network, resolution):
    """Pairs (name here, EDM's name) of the blocks of a U-Net of EDM or EDM2."""
    sizes = [resolution >> level for level in range(len(network["multipliers"]))]
    names = [f"{size}x{size}" for size in sizes]
    indices = range(network["blocks"])
    encoder = [f"enc.{names[0]}_block{n}" for n in indices]
    for name in names[1:]:
        encoder += [f"enc.{name}_down", *(f"enc.{name}_block{n}" for n in indices)]
    middle, decoder = [f"dec.{names[-1]}_in{n}" for n in (0, 1)], []
    for level in reversed(range(len(names))):
        decoder += [f"dec.{names[level]}_up"] if level < len(names) - 1 else []
        decoder += [f"dec.{names[level]}_block{n}" for n in range(network["blocks"] + 1)]
    for group, found in (("encoder", encoder), ("middle", middle), ("decoder", decoder)):
        yield from ((f"{group}.{n}", name) for n, name in enumerate(found))


def sorted_heads(value, heads):
    """EDM's rows (head, channel, q k v) -> (q k v, head, channel), the order of `Attention`."""
    rows = value.reshape(heads, -1, 3, *value.shape[1:])
    return rows.movedim(2, 0).reshape(value.shape)


def renamed(found, network, resolution):
    """{name here: tensor} from EDM2's; they are stored as float16."""
    ours = {theirs: name for name, theirs in blocks(network, resolution)}
    layers = LAYERS | {f"enc.{resolution}x{resolution}_conv.weight": "stem.weight"}
    weights = {}
    for name, value in found.items():
        block, inner = ".".join(name.split(".")[:2]), ".".join(name.split(".")[2:])
        if name in layers:
            here = layers[name]
        elif block in ours and inner in INSIDE:
            here = f"{ours[block]}.{INSIDE[inner]}"
        else:
            raise Foreign("weight", name, "those of the network that the arguments describe")
        if inner == "attn_qkv.weight":
            if value.ndim != 4 or value.shape[0] % 192:
                raise Foreign(name, f"{brief(tuple(value.shape))}", "3 x 64 rows for each head")
            value = sorted_heads(value, value.shape[0] // 192)
        weights[here] = value.float().contiguous()
    return weights


def images_of(content, channels):
    """The part of `about` that says what the network's images are, from the file's encoder: pixels
    in [-1, 1], as for a file without one, or latents."""
    encoder = content.get("encoder")
    if encoder is None:
        return {"shift": 127.5, "scale": 1 / 127.5}
    kind = encoder.kind if isinstance(encoder, Node) else type(encoder).__name__
    wanted("encoder", kind, PIXELS, LATENTS)
    if kind == PIXELS:
        return {"shift": 127.5, "scale": 1 / 127.5}
    parts = {name: getattr(vars(encoder).get(name), "values", None) for name in ("scale", "bias")}
    for name, values in parts.items():
        if values is None or len(values) != channels:
            found = "no such numbers" if values is None else f"{len(values)} numbers"
            raise Foreign(f"encoder.{name}", found, f"{channels} float32, one for each channel")
    return {
        "shift": 0.0,
        "scale": 1.0,
        "latents": {"scale": parts["scale"], "shift": parts["bias"]},
    }


def converted(content):
    """(weights, about) of the Precond at 'ema'."""
    wrapper = content["ema"]
    wanted("class at 'ema'", wrapper.kind, "Precond")
    children = vars(wrapper)["_modules"]
    for name in sorted(set(children) - PARTS):
        raise Foreign("Precond", f"a part {name}", ", ".join(sorted(PARTS)))
    network, shape = network_of(children["unet"])
    about = {"network": network, "process": "ve", "parameterization": "edm", "c_noise": "log_s"}
    about |= {"c_in": "scaled", "sd": float(wrapper.sigma_data), "shape": shape}
    about |= images_of(content, shape[0])
    require(about)  # before its sizes are used
    return fitted(renamed(tensors(children["unet"]), network, shape[1]), about), about
