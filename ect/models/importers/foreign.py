"""What a file is, told by how it begins: a wrong one is named, with the format that reads it.

Nothing of the file is run, and no more of it is read than its first megabyte and, of a zip, the
names of its entries.
"""

import json
import zipfile
from pathlib import Path

from ect.models.about import Foreign, brief, named
from ect.models.importers.scan import MAGIC
from ect.runtime.checkpoint import require_no_pipe
from ect.runtime.zips import is_locked

START = 2**20  # bytes that are looked at
READS = {  # what each format reads, by the names below, and in words
    "edm": (("pickle", "edm2"), "a pickle of EDM, EDM2 or ECT"),
    "ect": (("safetensors", "model"), "a model.safetensors of this pipeline"),
    "state_dict": (("torch", "safetensors", "model"), "weights of torch.save or .safetensors"),
    "diffusers": (("folder",), "a folder, or a repository of the hub"),
}
KINDS = {  # name: (what it is, how it can be read)
    "empty": ("an empty file", "download it again"),
    "zeros": ("zeros alone, as of a download that was cut", "download it again"),
    "lfs": ("a pointer of Git LFS, not the file itself", "`git lfs pull` fetches it"),
    "page": ("a web page", "the address of the file itself, not of its page"),
    "archive": ("a compressed archive", "unpack it first"),
    "numpy": ("arrays of numpy", "weights of torch.save"),
    "hdf5": ("a file of HDF5, as Keras writes", "weights of torch.save"),
    "gguf": ("a file of GGUF", "weights of torch.save"),
    "picture": ("a picture", "a model's file"),
    "program": ("a program of TorchScript", "its state_dict() with torch.save: `state_dict`"),
    "locked": ("an encrypted zip archive", "unpack it with its password first"),
    "zip": ("a zip archive", "unpack it first"),
    "torch": ("a file of torch.save", "format `state_dict`, if it holds bare weights"),
    "model": ("a model.safetensors of this pipeline", "format `ect`"),
    "safetensors": (
        "weights as safetensors", "format `state_dict`; of diffusers, its folder: `diffusers`"
    ),
    "edm2": ("a pickle of EDM2 or of ECT's imgnet branch", "format `edm`"),
    "stylegan": ("a pickle of StyleGAN", "networks of EDM: DDPM++, NCSN++, ADM, EDM2"),
    "pickle": ("a pickle", "format `edm`, if EDM, EDM2 or ECT wrote it"),
    "folder": ("a folder", "format `diffusers`, if diffusers wrote it"),
    "json": ("a file of JSON", "the weights beside it"),
    "text": ("text", "the weights, not a page or a script"),
}  # fmt: skip
BEGINNINGS = {
    b"version https://git-lfs": "lfs",
    b"\x1f\x8b": "archive", b"BZh": "archive", b"\xfd7zXZ\x00": "archive", b"Rar!": "archive",
    b"\x28\xb5\x2f\xfd": "archive", b"7z\xbc\xaf\x27\x1c": "archive",
    b"\x93NUMPY": "numpy", b"\x89HDF": "hdf5", b"GGUF": "gguf",
    b"\x89PNG": "picture", b"\xff\xd8\xff": "picture", b"%PDF": "picture",
    MAGIC: "torch",
}  # fmt: skip


def require(format, path):
    """Raise `ValueError` unless a file is of a kind that the format reads; a path that is not there
    is left to the reader, and so is what cannot be told."""
    path = Path(path)
    if not path.exists():
        return
    require_no_pipe(path)
    kind = kind_of(path)
    kinds, words = READS[format]
    if kind is None or kind in kinds:
        return
    found, hint = KINDS[kind]
    with named(path):
        raise Foreign("content", f"{found}{detail(kind, path)}", f"{words} ({hint})")


def kind_of(path):
    """The name in `KINDS` of a file or folder; None if nothing tells."""
    if path.is_dir():
        return "folder"
    head = beginning(path)
    if not head.strip(b"\x00"):
        return "zeros" if head else "empty"
    for start, kind in BEGINNINGS.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"PK"):
        return zip_kind(path)
    if head[257:262] == b"ustar":
        return "archive"
    if (tensors := header(head, path.stat().st_size)) is not None:
        return "model" if "network" in tensors else "safetensors"
    if is_pickle(head):
        return pickle_kind(head)
    return text_kind(head)


def beginning(path):
    with open(path, "rb") as file:
        return file.read(START)


def zip_kind(path):
    """Of a zip: torch.save has data.pkl, TorchScript code too, numpy .npy alone."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return None  # cut: its reader says so
    if is_locked(path):
        return "locked"
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        return "program"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "numpy" if names and all(name.endswith(".npy") for name in names) else "zip"


def header(head, size):
    """The description in a safetensors file's metadata; {} without one, None for another file."""
    length = int.from_bytes(head[:8], "little")
    if not (head[8:9] == b"{" and 2 <= length <= size - 8):
        return None
    try:
        about = json.loads(json.loads(head[8 : 8 + length])["__metadata__"]["about"])
        return about if isinstance(about, dict) else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def is_pickle(head):
    """Of protocol 2 or later, which says its number; EDM writes those."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def pickle_kind(head):
    """By words of the source that such pickles carry."""
    if b"mp_silu" in head:
        return "edm2"
    return "stylegan" if b"G_ema" in head[:4096] else "pickle"


def text_kind(head):
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "page"
    if start.startswith((b"{", b"[")):
        return "json"
    sample = head[:1024]
    readable = sum(byte >= 32 or byte in b"\t\r\n\x1b" for byte in sample)
    return "text" if readable == len(sample) and start.isascii() else None


def detail(kind, path):
    """The first line of a text, or the title of a page."""
    if kind not in ("page", "text", "json"):
        return ""
    text = beginning(path)[:4096].decode(errors="replace")
    if kind == "page" and "<title>" in text.lower():
        text = text[text.lower().index("<title>") + 7 :].partition("</")[0]
    return f" that begins {brief(text.strip()[:60])}" if text.strip() else ""
