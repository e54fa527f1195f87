"""A small pickle that asks for endless work or memory ends in one line, soon."""

import io
import pickle
import struct
import zipfile

import pytest
import torch

from ect.cli import main
from ect.models.importers import scan
from tests.helpers.checkpoints import Call, Persistent, unet

DOUBLINGS = 60


pytestmark = pytest.mark.usefixtures("soon")


def doubled(join, end, start=b")"):
    """Opcodes of an object that holds another one twice, which holds another one twice, ..."""
    body = b"".join(b"h\x00h\x00" + join + b"q\x00" for _ in range(DOUBLINGS))
    return b"\x80\x02" + start + b"q\x00" + body + end


def reduced(module, name, arguments):
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


REBUILD = b"ctorch._utils\n_rebuild_parameter\nh\x00h\x00\x86K\x00K\x00\x87R"
STORAGE = io.BytesIO()
torch.save(torch.zeros(4)._typed_storage(), STORAGE, _use_new_zipfile_serialization=False)
CONTENT = STORAGE.getvalue()
LONG = b"B" + struct.pack("<I", len(CONTENT)) + CONTENT
LOADED = reduced("torch.storage", "_load_from_bytes", LONG + b"\x85")


def expanded(size, stride):
    """A tensor of few numbers, each shown many times."""
    words = b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in size) + b"\x86"
    words += b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in stride) + b"\x86"
    return reduced("torch._utils", "_rebuild_tensor_v2", b"(" + LOADED + b"K\x00" + words + b"t")


def nested(content):
    return reduced("torch.storage", "_load_from_bytes",
                   b"B" + struct.pack("<I", len(content)) + content + b"\x85")  # fmt: skip


KEY = b"}h\x00K\x01s."
MANY = b"\x80\x02](" + b"".join(b"K" + bytes([n % 256]) for n in range(1500)) + b"eq\x00"
BOMBS = {
    "a key": doubled(b"\x86", KEY),
    "the top": doubled(b"\x86", b"h\x00."),
    "three at once": doubled(b"h\x00\x87", KEY),
    "by a mark": doubled(b"0(h\x00h\x00t", KEY),
    "a member": doubled(b"\x86", b"\x8f(h\x00\x90."),
    "frozen": doubled(b"0(h\x00h\x00\x91", KEY),
    "in a list first": doubled(b"\x86", b"0]h\x00a."),
    "through a reader": b"\x80\x02)q\x00" + (REBUILD + b"q\x00") * DOUBLINGS + KEY,
    "deep": b"\x80\x02)" + b"\x85" * 500_000 + b"q\x00" + KEY,
    "many steps": b"\x80\x02" + b"K\x010" * 700_000 + b"K\x01.",
    "a great index": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"K\x01.",
    "a long number": b"L" + b"9" * 200_000 + b"L\n.",
    "a great tensor": b"\x80\x02" + expanded((2**30, 2**30), (0, 0)) + b".",
    "a tuple as a side": b"\x80\x02" + reduced(
        "torch._utils", "_rebuild_tensor_v2", b"(" + LOADED + b"K\x00J\xff\xff\xff\x7f)\x86)t"
    ) + b".",
    "the same bytes again": b"\x80\x02" + LONG + b"q\x000" + (
        reduced("torch.storage", "_load_from_bytes", b"h\x00\x85") + b"0"
    ) * 3000 + b"N.",
    "a set again": MANY + (reduced("builtins", "set", b"h\x00\x85") + b"0") * 3000 + b"N.",
    "a dict again": MANY + reduced("collections", "OrderedDict", b"h\x00\x85") + b".",
    "nested": b"\x80\x02" + nested(scan.MAGIC + doubled(b"\x86", KEY)) + b".",
    "nested zip": b"\x80\x02" + nested(b"PK\x03\x04" + bytes(99)) + b".",
}  # fmt: skip


def imported(format, path, capsys, *words):
    """The one line that an import ends with."""
    assert main.main(["import-model", format, str(path), *words, "--out", f"{path}.out"]) == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and said.isprintable() and "allowed" in said, said
    return said


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_one_line(content, tmp_path, capsys):
    path = tmp_path / "net.pkl"
    path.write_bytes(content)
    said = imported("edm", path, capsys)
    assert said.startswith(f"ect import-model: {path}: ") and len(said) < 1500


def network():
    torch.manual_seed(0)
    return Persistent("EDMPrecond", {"model": unet("ddpmpp", 8, 3, 0)}, sigma_data=0.5)


def folded():
    value = [0]
    for _ in range(DOUBLINGS):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "name",
    ["num_blocks", "channel_mult", "in_channels", "decoder_type", "resample_filter", "label_dim"],
)
def test_an_argument_that_folds_upon_itself_is_one_line(written, capsys, name):
    net = network()
    net.state["_modules"]["model"].state["_init_kwargs"] |= {
        name: folded(),
        "out_channels": folded(),
    }
    said = imported("edm", written({"ema": net}), capsys)
    assert len(said) < 1500


def test_modules_that_fold_upon_themselves_are_one_line(written, capsys):
    net, part = network(), Persistent("Layer")
    for _ in range(DOUBLINGS):
        part = Persistent("Layer", {"a": part, "b": part})
    net.state["_modules"]["model"].state["_modules"]["more"] = part
    said = imported("edm", written({"ema": net}), capsys)
    assert "the same module at two places" in said


@pytest.fixture
def bare(digits_file):
    """The words of an import of bare weights."""
    about = '{"network": {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []},'
    about += '"process": "ve", "parameterization": "edm", "c_noise": "log_s"}'
    return "--about", about, "--data", str(digits_file)


def zipped(content, path, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr("w/data.pkl", content)
        file.writestr("w/version", "3\n")
        file.writestr("w/data/0", bytes(4_000_000))


@pytest.mark.parametrize("case", ["old", "zip", "swelling", "expanded"])
def test_bare_weights_are_bounded_too(case, bare, tmp_path, capsys):
    path, key = tmp_path / "w.pt", doubled(b"\x86", KEY)
    if case == "old":
        path.write_bytes(scan.MAGIC + b"\x80\x02M\xe9\x03.\x80\x02}." + key + b"\x80\x02].")
    elif case == "expanded":
        torch.save({"stem.weight": torch.zeros(1).expand(2**40)}, path)
    else:
        how = zipfile.ZIP_DEFLATED if case == "swelling" else zipfile.ZIP_STORED
        zipped(key, path, how)
    said = imported("state_dict", path, capsys, *bare)
    assert f"{path}: " in said


def test_what_torch_and_pickle_write_of_a_large_network_is_in_bounds(tmp_path):
    layers = [torch.nn.Conv2d(8, 8, 3) for _ in range(1000)]
    state = torch.nn.Sequential(*layers).state_dict()
    for protocol in range(2, 6):
        scan.scan(io.BytesIO(pickle.dumps(state, protocol)))
    for new in (True, False):
        torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
        with open(tmp_path / "w.pt", "rb") as file:
            scan.scan_torch(file)
            assert file.tell() == 0


def test_the_walk_counts_as_a_tree():
    """A tuple's count is 1, and its parts' counts; a list or dict in it counts 1."""
    shared = (1, 2)
    walk = scan.Walk()
    walk.over(scan.pickletools.genops(pickle.dumps((shared, shared, [shared] * 9), 4)))
    assert max(count for count in walk.memo.values() if count) == 1 + 3 + 3 + 1


def test_a_call_is_still_refused(written, capsys):
    said = imported("edm", written(Call(print, "x")), capsys)
    assert "builtins.print" in said
