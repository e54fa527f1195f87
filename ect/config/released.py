"""Model files that others have released, by their names: where they are, and the network in them,
so that a study is planned before they are there. Loads no torch."""

import re
from pathlib import Path
from typing import Any, NamedTuple

EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"
EDM2 = "https://nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions/"


class Released(NamedTuple):
    """A released file: where it is, and its network as an import describes it, for images of
    `shape` (C, H, W). `size` is that of its weights, in bytes; the file is a little larger."""

    url: str
    network: dict
    shape: tuple
    parameters: int
    size: int


_SONG: dict[str, Any] = {
    "architecture": "ddpmpp", "channels": 128, "blocks": 4, "attention": [16],
    "embedding": "positional", "augment_labels": 9,
}  # fmt: skip
_NCSN = {"architecture": "ncsnpp", "embedding": "fourier"}
_ADM = {
    "architecture": "adm", "channels": 192, "multipliers": [1, 2, 3, 4], "blocks": 3,
    "attention": [32, 16, 8], "embedding": "positional", "classes": 1000,
}  # fmt: skip
_SMALL, _LARGE = {"multipliers": [2, 2, 2]}, {"multipliers": [1, 2, 2, 2], "classes": 0}
# EDM's, by the words of their names: network, parameters.
_OF_EDM: dict[str, tuple[dict, int]] = {
    "cifar10-32x32-uncond-vp": (_SONG | _SMALL | {"classes": 0}, 55_733_891),
    "cifar10-32x32-cond-vp": (_SONG | _SMALL | {"classes": 10}, 55_735_299),
    "cifar10-32x32-uncond-ve": (_SONG | _NCSN | _SMALL | {"classes": 0}, 56_397_827),
    "cifar10-32x32-cond-ve": (_SONG | _NCSN | _SMALL | {"classes": 10}, 56_400_643),
    **{f"{name}-64x64-uncond-vp": (_SONG | _LARGE, 61_805_571) for name in ("ffhq", "afhqv2")},
    **{
        f"{name}-64x64-uncond-ve": (_SONG | _NCSN | _LARGE, 62_761_091)
        for name in ("ffhq", "afhqv2")
    },
    "imagenet-64x64-cond-adm": (_ADM, 295_899_267),
}
# EDM2's sizes at 64 pixels: channels, parameters without those of u(s), which an import leaves.
_OF_EDM2 = {
    "xs": (128, 124_710_821), "s": (192, 280_209_253), "m": (256, 497_803_045),
    "l": (320, 777_492_197), "xl": (384, 1_119_276_709),
}  # fmt: skip


def released(path) -> Released | None:
    """The released file of this name; None for any other."""
    name = Path(path).name
    if found := re.fullmatch(r"edm-([a-z0-9-]+)\.pkl", name):
        return _edm(name, *_OF_EDM[found[1]]) if found[1] in _OF_EDM else None
    found = re.fullmatch(r"edm2-img64-(xs|s|m|l|xl)-\d{7}-0\.\d{3}\.pkl", name)
    return _edm2(name, *_OF_EDM2[found[1]]) if found else None


def _edm(name, network, parameters):
    side = 32 if "32x32" in name else 64
    return Released(EDM + name, network, (3, side, side), parameters, 4 * parameters)


def _edm2(name, channels, parameters):
    network = {
        "architecture": "edm2", "channels": channels, "multipliers": [1, 2, 3, 4], "blocks": 3,
        "attention": [16, 8], "classes": 1000,
    }  # fmt: skip
    return Released(EDM2 + name, network, (3, 64, 64), parameters, 2 * parameters)
