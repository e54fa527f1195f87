"""Checkpoints in the pickle format of EDM and ECT, made here."""

import math
import pickle
import sys
import types

import pytest
import torch
from torch.nn import functional

SONG = {"model_channels": 8, "channel_mult": [1, 2, 2], "num_blocks": 1, "attn_resolutions": [4]}
NCSN = {"embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual"}
MODELS = {  # arrangement: (EDM's class, arguments, resampling filter)
    "ddpmpp": ("SongUNet", SONG, [1, 1]),
    "ncsnpp": ("SongUNet", SONG | NCSN | {"resample_filter": [1, 3, 3, 1]}, [1, 3, 3, 1]),
    "adm": ("DhariwalUNet", SONG | {"model_channels": 32, "channel_mult": [1, 2, 4]}, [1, 1]),
}


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the file's own reader ran")


class Persistent:
    """Pickles like an object whose class has EDM's decorator `persistent_class`."""

    source = "raise AssertionError('the source in the file ran')"
    form = {"type": "class", "version": 6}

    def __init__(self, kind, children=None, weights=None, buffers=None, **attributes):
        self.kind = kind
        self.state = attributes | {"training": False, "_non_persistent_buffers_set": set()}
        self.state |= {"_parameters": weights or {}, "_buffers": buffers or {}}
        self.state["_modules"] = children or {}

    def __reduce__(self):
        meta = self.form | {"module_src": self.source, "class_name": self.kind, "state": self.state}
        return _reconstruct_persistent_obj, (meta,)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes an object to a file; torch_utils.persistence exists while it is pickled."""
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")

    def write(content, name="net.pkl"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
            patch.setitem(sys.modules, "torch_utils.persistence", module)
            data = pickle.dumps(content)
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def noise(*shape):
    return torch.nn.Parameter(torch.randn(shape) / math.prod(shape[1:]) ** 0.5, False)


def layer(*shape, bias=True):
    weights = {"weight": noise(*shape), "bias": noise(shape[0]) if bias else None}
    return Persistent("Layer", weights=weights)


def normed(channels):
    return Persistent("GroupNorm", weights={"weight": 1 + noise(channels), "bias": noise(channels)})


def block(adm, features, inputs, outputs, attention=False, resample=None):
    """EDM's UNetBlock; the way it resamples is noted for the evaluation below."""
    parts = {
        "norm0": normed(inputs),
        "conv0": layer(outputs, inputs, 3, 3),
        "affine": layer(outputs * (2 if adm else 1), features),
        "norm1": normed(outputs),
        "conv1": layer(outputs, outputs, 3, 3),
    }
    if inputs != outputs or (resample and not adm):
        parts["skip"] = layer(outputs, inputs, 1, 1)
    elif resample:
        fixed = {"resample_filter": torch.full((1, 1, 2, 2), 0.25)}
        parts["skip"] = Persistent("Conv2d", weights={"weight": None, "bias": None}, buffers=fixed)
    if attention and (not adm or outputs >= 64):
        parts |= {"norm2": normed(outputs), "qkv": layer(3 * outputs, outputs, 1, 1)}
        parts["proj"] = layer(outputs, outputs, 1, 1)
    return Persistent("UNetBlock", parts, resample=resample)


def unet(arrangement, size, depth, classes):
    """EDM's network with random weights, its modules in EDM's order and by EDM's names."""
    kind, options, _ = MODELS[arrangement]
    adm, residual = arrangement == "adm", arrangement == "ncsnpp"
    base = options["model_channels"]
    widths, waves = [base * m for m in options["channel_mult"]], base * (2 if residual else 1)
    make = lambda *a, **k: block(adm, 4 * base, *a, **k)  # noqa: E731
    parts = {"map_layer0": layer(4 * base, waves), "map_layer1": layer(4 * base, 4 * base)}
    parts["map_augment"] = layer(waves, 9, bias=False)
    if classes:
        parts["map_label"] = layer(4 * base if adm else waves, classes, bias=not adm)
    if residual:
        freqs = {"freqs": 0.3 * torch.randn(waves // 2)}
        parts["map_noise"] = Persistent("FourierEmbedding", buffers=freqs)
    encoder, skips, aux = {f"{size}x{size}_conv": layer(base, depth, 3, 3)}, [base], depth
    for level, width in enumerate(widths):
        at = f"{size >> level}x{size >> level}"
        if level:
            encoder[f"{at}_down"] = make(skips[-1], skips[-1], resample="down")
            skips.append(skips[-1])
            if residual:
                encoder[f"{at}_aux_residual"] = layer(skips[-1], aux, 3, 3)
                aux = skips[-1]
        encoder[f"{at}_block0"] = make(skips[-1], width, size >> level == 4)
        skips.append(width)
    decoder, last = {}, skips[-1]
    decoder[f"{at}_in0"], decoder[f"{at}_in1"] = make(last, last, True), make(last, last)
    for level, width in reversed(list(enumerate(widths))):
        at = f"{size >> level}x{size >> level}"
        if level < len(widths) - 1:
            decoder[f"{at}_up"] = make(last, last, resample="up")
        for n in (0, 1):
            attends = size >> level == 4 and (adm or n == 1)
            decoder[f"{at}_block{n}"] = make(last + skips.pop(), width, attends)
            last = width
    ends = [normed(last), layer(depth, last, 3, 3)]
    if adm:
        parts |= dict(zip(("out_norm", "out_conv"), ends))
    else:
        decoder |= dict(zip((f"{at}_aux_norm", f"{at}_aux_conv"), ends))
    enc, dec = torch.nn.ModuleDict(), torch.nn.ModuleDict()
    enc._modules, dec._modules = encoder, decoder
    shape = {"img_resolution": size, "in_channels": depth, "out_channels": depth}
    arguments = options | shape | {"label_dim": classes, "augment_dim": 9, "dropout": 0.1}
    return Persistent(kind, parts | {"enc": enc, "dec": dec}, _init_args=(), _init_kwargs=arguments)


def norm(part, x, eps):
    w, groups = part.state["_parameters"], min(32, x.shape[1] // 4)
    grouped = x.reshape(len(x), groups, -1)
    grouped = grouped - grouped.mean(2, keepdim=True)
    grouped = grouped / (grouped.square().mean(2, keepdim=True) + eps).sqrt()
    return grouped.reshape(x.shape) * w["weight"][:, None, None] + w["bias"][:, None, None]


def conv(part, x, padding=None):
    w = part.state["_parameters"]
    size = w["weight"].shape[-1]
    return functional.conv2d(x, w["weight"], w["bias"], padding=size // 2 + (padding or 0))


def linear(part, x):
    w = part.state["_parameters"]
    return x @ w["weight"].T + (0 if w["bias"] is None else w["bias"])


def resampled(x, way, taps, padding):
    """The filter as a matrix on rows and columns: entry (i, j) is what pixel j gives to i."""
    if way is None:
        return x
    n = x.shape[-1] if way == "down" else 2 * x.shape[-1]
    matrix = torch.zeros((n + 2 * padding - len(taps)) // 2 + 1, n)
    for i in range(len(matrix)):
        for k, tap in enumerate(taps):
            if 0 <= 2 * i + k - padding < n:
                matrix[i, 2 * i + k - padding] = tap / sum(taps)
    matrix = matrix if way == "down" else 2 * matrix.T
    return matrix @ x @ matrix.T


def attended(parts, x, heads, eps):
    qkv = conv(parts["qkv"], norm(parts["norm2"], x, eps)).flatten(2)
    out = []
    for head in qkv.chunk(heads, dim=1):  # rows of a head: q, k, v of its first channel, ...
        q, k, v = head[:, 0::3], head[:, 1::3], head[:, 2::3]
        weights = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(dim=2)
        out.append(v @ weights.transpose(1, 2))
    return conv(parts["proj"], torch.cat(out, dim=1).reshape(x.shape))


def through(part, x, features, adm, taps):
    """The output of EDM's UNetBlock."""
    parts, way, edge = part.state["_modules"], part.state["resample"], len(taps) // 2 - 1
    eps, gain = (1e-5, 1.0) if adm else (1e-6, 0.5**0.5)
    h = resampled(functional.silu(norm(parts["norm0"], x, eps)), way, taps, edge)
    h, emb = conv(parts["conv0"], h), linear(parts["affine"], features)[:, :, None, None]
    if adm:
        scale, shift = emb.chunk(2, dim=1)
        h = norm(parts["norm1"], h, eps) * (scale + 1) + shift
    else:
        h = norm(parts["norm1"], h + emb, eps)
    h, x = conv(parts["conv1"], functional.silu(h)), resampled(x, way, taps, edge)
    if "skip" in parts and parts["skip"].state["_parameters"]["weight"] is not None:
        x = conv(parts["skip"], x)
    x = (h + x) * gain
    if "qkv" in parts:
        x = (attended(parts, x, x.shape[1] // 64 if adm else 1, eps) + x) * gain
    return x


def embedded(parts, c_noise, hot, adm, moved=None):
    width = parts["map_layer0"].state["_parameters"]["weight"].shape[1]
    if "map_noise" in parts:
        angles = c_noise[:, None] * 2 * math.pi * parts["map_noise"].state["_buffers"]["freqs"]
    else:
        steps = torch.arange(width // 2) / (width // 2 - (0 if adm else 1))
        angles = c_noise[:, None] * torch.exp(-math.log(1e4) * steps)
    waves = torch.cat([angles.cos(), angles.sin()] if adm else [angles.sin(), angles.cos()], 1)
    if moved is not None:
        waves = waves + linear(parts["map_augment"], moved)
    if hot is not None and not adm:
        waves = waves + linear(parts["map_label"], hot * hot.shape[1] ** 0.5)
    out = linear(parts["map_layer1"], functional.silu(linear(parts["map_layer0"], waves)))
    if hot is not None and adm:
        out = out + linear(parts["map_label"], hot)
    return functional.silu(out)


def edm_f(model, x, c_noise, hot, arrangement, moved=None):
    """EDM's F from the objects of the file; `moved` are the labels of augmentation."""
    parts, adm, taps = model.state["_modules"], arrangement == "adm", MODELS[arrangement][2]
    features, skips, image = embedded(parts, c_noise, hot, adm, moved), [], x
    for name, part in parts["enc"]._modules.items():
        if "residual" in name:
            far = resampled(conv(part, image, 1), "down", taps, 0)
            x = image = skips[-1] = (x + far) / 2**0.5
            continue
        x = conv(part, x) if name.endswith("conv") else through(part, x, features, adm, taps)
        skips.append(x)
    end = [parts.get("out_norm"), parts.get("out_conv")]
    for name, part in parts["dec"]._modules.items():
        if "aux" in name:
            end["conv" in name] = part
            continue
        x = torch.cat([x, skips.pop()], dim=1) if "block" in name else x
        x = through(part, x, features, adm, taps)
    return conv(end[1], functional.silu(norm(end[0], x, 1e-5 if adm else 1e-6)))


def edm_d(wrapper, x, sigma, hot, arrangement):
    """EDM's D(x, sigma), table 1 of the paper."""
    s, model, sd = sigma[:, None, None, None], wrapper.state["_modules"]["model"], 1.0
    if wrapper.kind == "VEPrecond":
        return x + s * edm_f(model, x, (sigma / 2).log(), hot, arrangement)
    if wrapper.kind == "VPPrecond":
        t = ((0.01 + 39.8 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
        return x - s * edm_f(model, x / (1 + s**2).sqrt(), 999 * t, hot, arrangement)
    sd = wrapper.state["sigma_data"]
    root = (s**2 + sd**2).sqrt()
    out = edm_f(model, x / root, sigma.log() / 4, hot, arrangement)
    return (sd / root) ** 2 * x + s * sd / root * out


class Call:
    """Pickles as a call of a function, which the plain unpickler makes."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call
