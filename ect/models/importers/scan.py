"""Bounds of a pickle, checked on its opcodes before it is read.

A few hundred bytes can ask for 2^60 steps: a tuple that holds another one twice, which holds
another one twice, ... as the key of a dict, whose hash visits all of them. So a pickle is walked
first, and every object that hashing can enter counts what it holds, shared or not.
"""

import pickletools
import zipfile

from ect.models.about import Foreign

OPCODES = 1_000_000  # a network of 2,000 tensors has about 100,000
LARGEST = 10_000  # objects in one that can be hashed, counted as a tree
FRAME = 2**26  # bytes of one frame; pickle's own are of 2^16
TOTAL = 5_000_000  # the same, over the whole pickle
CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT"}
INTO = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}  # a container: it is not hashed
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch's old format begins
PICKLES = 5  # in that format: magic, version, system, content, keys; then the numbers


def scan(file, pickles=1):
    """Walk this many pickles of an open file; raises `Foreign` for one out of bounds, `ValueError`
    for one that is damaged. `file` ends where it ends, as `io.BytesIO` and `mmap` do."""
    for _ in range(pickles):
        Walk().over(pickletools.genops(file))


class Walk:
    """The unpickler's stack and memo, with a count of objects in place of each object."""

    def __init__(self):
        self.stack, self.memo, self.total = [], {}, 0

    def over(self, opcodes):
        for number, (opcode, argument, _) in enumerate(opcodes):
            if number >= OPCODES:
                raise Foreign("pickle", f"more than {OPCODES:,} steps", "fewer")
            self.step(opcode, argument)

    def step(self, opcode, argument):
        name = opcode.name
        if type(argument) is int and (
            (name == "FRAME" and argument > FRAME) or ("PUT" in name and argument > OPCODES)
        ):
            raise Foreign("pickle", f"{name} {argument:,}", f"at most {FRAME:,} and {OPCODES:,}")
        if name == "MARK":
            self.stack.append(None)
        elif name == "MEMOIZE" or "PUT" in name:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name.endswith("GET"):
            self.stack.append(self.memo[argument])
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            self.replace(name, self.taken(opcode), len(opcode.stack_after))

    def taken(self, opcode):
        """The counts that an opcode takes from the stack."""
        before, found = opcode.stack_before, []
        if pickletools.markobject in before:
            while (count := self.stack.pop()) is not None:
                found.append(count)
            before = before[: before.index(pickletools.markobject)]
        return found + [self.stack.pop() or 0 for _ in before]

    def replace(self, name, taken, results):
        count = 1 if name in CONTAINERS else 1 + sum(taken)
        self.total += 1 + sum(taken)
        if name in INTO:
            count = taken[-1]
        if count > LARGEST or self.total > TOTAL:
            found = f"objects inside one another, {max(count, self.total):,} in all"
            raise Foreign("pickle", found, f"at most {LARGEST:,}, as those of a network")
        self.stack += [count] * results


def scan_torch(file):
    """`scan` a file of torch.save, in the format of today (a zip) or of before 1.6."""
    head = file.read(len(MAGIC))
    file.seek(0)
    if head == MAGIC:
        scan(file, PICKLES)
    elif head.startswith(b"PK"):
        scan_zip(file)
    else:
        found = f"bytes that begin {head[:8]!r}"
        raise Foreign("content", found, "a state dict as .safetensors, or of torch.save")
    file.seek(0)


def scan_zip(file):
    """`scan` the pickle of a zip whose entries are stored as they are, so that none can swell."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise Foreign("zip", f"the compressed entry {entry.filename}", "as torch.save has")
            if entry.filename.endswith("data.pkl"):
                with archive.open(entry) as content:
                    scan(content)
