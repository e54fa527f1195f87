"""Checkpoints in the pickle format of EDM2 and of ECT's imgnet branch, made here, and D computed
from the tensors in them by their names."""

import math

import numpy as np
import torch
from torch.nn import functional

from tests.helpers.checkpoints import Persistent

HEAD = 64


def parameter(*shape):
    return torch.nn.Parameter((1.5 * torch.randn(shape)).half(), False)


def gain():
    return torch.nn.Parameter((0.3 + 0.4 * torch.rand(())).half(), False)


def layer(inputs, outputs, *kernel):
    return Persistent("MPConv", weights={"weight": parameter(outputs, inputs, *kernel)})


def fourier(width):
    angles = {name: (2 * math.pi * torch.rand(width)).half() for name in ("freqs", "phases")}
    return Persistent("MPFourier", buffers=angles)


def block(inputs, outputs, features, flavor, attention=False, resample="keep"):
    parts = {
        "conv_res0": layer(outputs if flavor == "enc" else inputs, outputs, 3, 3),
        "emb_linear": layer(features, outputs),
        "conv_res1": layer(outputs, outputs, 3, 3),
        "conv_skip": layer(inputs, outputs, 1, 1) if inputs != outputs else None,
        "attn_qkv": layer(outputs, 3 * outputs, 1, 1) if attention else None,
        "attn_proj": layer(outputs, outputs, 1, 1) if attention else None,
    }
    marks = {"flavor": flavor, "resample_mode": resample, "num_heads": outputs // HEAD}
    return Persistent("Block", parts, {"emb_gain": gain()}, **marks)


def groups(size, depth, widths, count, attention):
    """EDM2's encoder and decoder, its modules in EDM2's order and by EDM2's names."""
    features, skips = max(widths), [widths[0]]
    encoder, decoder = {f"{size}x{size}_conv": layer(depth + 1, widths[0], 3, 3)}, {}
    sides = [size >> level for level in range(len(widths))]
    for side, width in zip(sides, widths):
        if side < size:
            down = block(skips[-1], skips[-1], features, "enc", resample="down")
            encoder[f"{side}x{side}_down"] = down
            skips.append(skips[-1])
        for n in range(count):
            made = block(skips[-1], width, features, "enc", side in attention)
            encoder[f"{side}x{side}_block{n}"] = made
            skips.append(width)
    last = skips[-1]
    for side, width in reversed(list(zip(sides, widths))):
        if side == sides[-1]:
            decoder[f"{side}x{side}_in0"] = block(last, last, features, "dec", last >= HEAD)
            decoder[f"{side}x{side}_in1"] = block(last, last, features, "dec")
        else:
            decoder[f"{side}x{side}_up"] = block(last, last, features, "dec", resample="up")
        for n in range(count + 1):
            made = block(last + skips.pop(), width, features, "dec", side in attention)
            decoder[f"{side}x{side}_block{n}"] = made
            last = width
    return encoder, decoder


def precond(
    size=16, depth=3, classes=5, channels=64, multipliers=(1, 2), count=1, attention=(8,), ect=False
):
    """EDM2's Precond with random weights and gains; of ECT's imgnet branch, which has no u."""
    widths = [channels * m for m in multipliers]
    parts = {
        "emb_fourier": fourier(widths[0]),
        "emb_noise": layer(widths[0], max(widths)),
        "emb_label": layer(classes, max(widths)) if classes else None,
    }
    for name, found in zip(("enc", "dec"), groups(size, depth, widths, count, attention)):
        parts[name] = torch.nn.ModuleDict()
        parts[name]._modules = found
    parts["out_conv"] = layer(widths[0], depth, 3, 3)
    options = {"model_channels": channels, "channel_mult": list(multipliers), "num_blocks": count}
    options |= {"attn_resolutions": list(attention), "dropout": 0.1}
    options |= {"dropout_res": 16} if ect else {}
    shape = {"img_resolution": size, "img_channels": depth, "label_dim": classes}
    unet = Persistent(
        "UNet", parts, {"out_gain": gain()}, _init_args=(), _init_kwargs=shape | options
    )
    children = {"unet": unet}
    if not ect:
        children |= {"logvar_fourier": fourier(128), "logvar_linear": layer(128, 1)}
    about = shape | {"use_fp16": True, "sigma_data": 0.5}
    kwargs = shape | options | {"use_fp16": True}
    return Persistent("Precond", children, **about, _init_args=(), _init_kwargs=kwargs)


def vae_encoder(channels=4):
    """The encoder in a file of latents, which holds arrays of numpy."""
    numbers = np.linspace(0.1, 0.2, channels, dtype=np.float32)
    return Persistent(
        "StabilityVAEEncoder", vae_name="a/b", scale=numbers, bias=-numbers, _vae=None
    )


def unit(x, dims):
    return x / (1e-4 + x.square().mean(dims, keepdim=True).sqrt())


def through(part, x, gain=1.0):
    weight = part.state["_parameters"]["weight"].float()
    count = weight[0].numel()
    weight = gain * unit(weight, tuple(range(1, weight.ndim))) / math.sqrt(count)
    if weight.ndim == 2:
        return x @ weight.T
    return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


def silu(x):
    return x * torch.sigmoid(x) / 0.596


def summed(a, b, share):
    return ((1 - share) * a + share * b) / math.sqrt((1 - share) ** 2 + share**2)


def waves(part, c):
    angles = {name: value.float() for name, value in part.state["_buffers"].items()}
    return math.sqrt(2) * torch.cos(c[:, None] * angles["freqs"] + angles["phases"])


def attended(parts, x, heads):
    rows = through(parts["attn_qkv"], x).reshape(len(x), heads, HEAD, 3, -1)
    q, k, v = unit(rows, 2).unbind(3)
    weights = (q.transpose(2, 3) @ k / math.sqrt(HEAD)).softmax(3)
    mixed = (v @ weights.transpose(2, 3)).reshape(x.shape)
    return summed(x, through(parts["attn_proj"], mixed), 0.3)


def block_out(part, x, features):
    state, parts = part.state, part.state["_modules"]
    if state["resample_mode"] == "down":
        x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    if state["resample_mode"] == "up":
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    project = (lambda x: through(parts["conv_skip"], x)) if parts["conv_skip"] else (lambda x: x)
    if state["flavor"] == "enc":
        x = unit(project(x), 1)
    y = through(parts["conv_res0"], silu(x))
    scale = through(parts["emb_linear"], features, state["_parameters"]["emb_gain"].float())
    y = through(parts["conv_res1"], silu(y * (1 + scale)[:, :, None, None]))
    x = summed(x if state["flavor"] == "enc" else project(x), y, 0.3)
    if parts["attn_qkv"]:
        x = attended(parts, x, state["num_heads"])
    return x.clip(-256, 256)


def edm2_f(unet, x, c_noise, hot):
    """EDM2's F from the objects of the file."""
    parts = unet.state["_modules"]
    features = through(parts["emb_noise"], waves(parts["emb_fourier"], c_noise))
    if parts["emb_label"]:
        scaled = hot * math.sqrt(hot.shape[1])
        features = summed(features, through(parts["emb_label"], scaled), 0.5)
    features, skips = silu(features), []
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    for name, part in parts["enc"]._modules.items():
        x = through(part, x) if name.endswith("conv") else block_out(part, x, features)
        skips.append(x)
    for name, part in parts["dec"]._modules.items():
        if "block" in name:
            skip = skips.pop()
            count = x.shape[1] + skip.shape[1]
            pair = [part * math.sqrt(count / 2 / part.shape[1]) for part in (x, skip)]
            x = torch.cat(pair, 1)
        x = block_out(part, x, features)
    return through(parts["out_conv"], x, unet.state["_parameters"]["out_gain"].float())


def edm2_d(net, x, sigma, hot):
    """EDM2's D(x, sigma): EDM's preconditioning."""
    s, sd = sigma[:, None, None, None], net.state["sigma_data"]
    root = (s**2 + sd**2).sqrt()
    out = edm2_f(net.state["_modules"]["unet"], x / root, sigma.log() / 4, hot)
    return (sd / root) ** 2 * x + s * sd / root * out
