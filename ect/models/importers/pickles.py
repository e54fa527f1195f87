"""A pickle of EDM, EDM2 or ECT, read without running or importing anything that it names.

Such a file carries Python source and asks the reader to run it. Here the names on a short list are
mapped to the readers below, and every other name is refused.
"""

import collections
import io
import math
import mmap
import os
import pickle
import struct

import torch

from ect.models.about import Foreign, brief
from ect.models.importers.scan import MAGIC, scan, scan_torch

FEW = 1000  # items of a set or dict that is made in one step


class Node:
    """An object of the file: its attributes, and the class name it had where it was written."""

    kind = "container"


def persistent(meta):
    """What persistence._reconstruct_persistent_obj makes of `meta`, without running its source."""
    form = (meta["type"], meta["version"], type(meta["class_name"]))
    if form != ("class", 6, str):
        raise Foreign("persistent object", brief(form[:2]), "type 'class', version 6")
    node = Node()
    node.__dict__.update(meta["state"])
    node.kind = meta["class_name"]
    return node


class Budget:
    """Bytes that a file may make, a few times its own."""

    def __init__(self, size):
        self.left = 4 * size + 2**20

    def take(self, size):
        self.left -= size
        if self.left < 0:
            raise Foreign("pickle", "tensors larger than the file", "those that it holds")


def scan_file(file):
    """`scan` an open file, which is then read from its start."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        scan(content)


def storage(content, budget):
    """A storage, from the bytes of a nested file that torch wrote in its format before 1.6."""
    budget.take(len(content))
    if not content.startswith(MAGIC):
        raise Foreign("nested file", f"bytes that begin {brief(content[:8])}", "a file of torch")
    scan_torch(io.BytesIO(content))
    read = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(read, torch.storage.TypedStorage):
        raise Foreign("nested file", type(read).__name__, "a storage of numbers with a type")
    return torch.tensor([], dtype=read.dtype).set_(read)


def tensor(budget, flat, offset, size, stride, *_):
    """A tensor on the flat storage; as_strided refuses what lies outside of it."""
    if not all(type(side) is int for side in size):
        raise Foreign("tensor", f"the shape {brief(size)}", "whole numbers")
    budget.take(math.prod(size) * flat.itemsize)
    return flat.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


class Dtype:
    """numpy's description of a scalar, such as 'f8'."""

    def __init__(self, code, *_):
        self.code = code

    def __setstate__(self, state):
        self.order = state[1]


class Array:
    """A numpy array: its numbers as a list, if they are float32; EDM2 has a few in an encoder."""

    values = None

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        _, shape, dtype, _, content = state
        plain = dtype.code == "f4" and dtype.order == "<" and len(shape) == 1
        if plain and shape[0] <= FEW and len(content) == 4 * shape[0]:
            self.values = list(struct.unpack(f"<{shape[0]}f", content))


def scalar(dtype, content):
    """A numpy float64; other scalars stay bytes, as nothing here reads them."""
    return struct.unpack("<d", content)[0] if dtype.code == "f8" else content


def few(items=()):
    """The items of a set, or a dict, that is made in one step: EDM's are empty."""
    if len(items) > FEW:
        raise Foreign("set", f"{len(items)} at once", f"at most {FEW}")
    return items


class EasyDict(dict):
    """EDM's dict, made empty and filled then."""

    def __init__(self):
        super().__init__()


def readers(size):
    """{(module, name): what stands for it} of the names that a file may use; made anew for each
    file of `size` bytes, since a pickle can set attributes of these objects."""
    budget = Budget(size)
    module = type("Module", (Node,), {})
    array = type("Array", (Array,), {})
    numpy = {"scalar": lambda *a: scalar(*a), "_reconstruct": array}
    cores = ("numpy.core.multiarray", "numpy._core.multiarray")
    return {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): lambda meta: persistent(meta),
        ("torch._utils", "_rebuild_tensor_v2"): lambda *a: tensor(budget, *a),
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch.storage", "_load_from_bytes"): lambda content: storage(content, budget),
        ("torch.nn.modules.container", "ModuleDict"): module,
        ("collections", "OrderedDict"): lambda *a: collections.OrderedDict(*map(few, a)),
        ("dnnlib.util", "EasyDict"): type("EasyDict", (EasyDict,), {}),
        ("numpy", "dtype"): type("Dtype", (Dtype,), {}),
        ("builtins", "set"): lambda *a: set(*map(few, a)),
        ("builtins", "getattr"): lambda *_: None,  # ECT's loss keeps a bound method; not needed
        ("numpy", "ndarray"): None,  # an argument of _reconstruct
    } | {(core, name): reader for core in cores for name, reader in numpy.items()}


class Reader(pickle.Unpickler):
    """An unpickler that knows `readers` and nothing else."""

    def __init__(self, file):
        super().__init__(file)
        self.readers = readers(os.fstat(file.fileno()).st_size)

    def find_class(self, module, name):
        if (module, name) not in self.readers:
            known = ", ".join(".".join(pair) for pair in self.readers)
            raise Foreign("name in the pickle", f"{module}.{name}", known)
        return self.readers[module, name]

    def persistent_load(self, pid):
        raise Foreign("persistent id", brief(pid), "tensors inside the pickle, as EDM has them")


def tensors(node, prefix="", seen=None):
    """{name: tensor} of a module and those below it, as its state_dict would name them. Each module
    stands at one place."""
    found, seen = {}, set() if seen is None else seen
    if id(node) in seen:
        raise Foreign(prefix or "module", "the same module at two places", "a tree of modules")
    seen.add(id(node))
    for name, value in (node._parameters | node._buffers).items():
        if value is not None:
            if not isinstance(value, torch.Tensor):
                raise Foreign(prefix + name, type(value).__name__, "a tensor")
            found[prefix + name] = value
    for name, child in node._modules.items():
        if child is not None:
            found |= tensors(child, f"{prefix}{name}.", seen)
    return found
