"""A crash that only repeats itself is not tried a third time. Loads no torch.

Snakemake tries a failed job again, and says for which time. What an attempt died of, with the image
at which it did, is noted in `.k12.crash.json` beside the outputs `k12`. If the next one dies of the
same, those after it refuse to start. A new run of Snakemake counts from 1, and so tries afresh.
"""

import json
from contextlib import contextmanager, suppress
from pathlib import Path

from ect import checkpoint, progress

# What may be gone at the next try: a full disk, a device that was lost, memory that others had,
# another process.
# A divergence is final at once; `progress.Work` knows it.
PASSING = (
    progress.Stopped,
    progress.Obstacle,
    checkpoint.CheckpointError,
    OSError,
    FloatingPointError,
)


def note_of(out):
    """Where the crash of a job with these outputs is noted."""
    whole = Path(out).resolve()
    return whole.with_name(f".{whole.name}.crash.json")


@contextmanager
def noted(out, attempt):
    """Note a crash of the block, attempt 1, 2, ... of one job, and forget it when the block ends
    well. Raises `ValueError` where the two attempts before have died of the same."""
    path = note_of(out)
    before = _read(path) if attempt > 1 else {}
    if before.get("repeated"):
        raise ValueError(
            f"twice the same: {before['message']}; not tried again by this Snakemake, but by the"
            " next one"
        )
    try:
        yield
    except Exception as error:
        if not _passing(error):
            message = " ".join(
                [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
            )
            with suppress(OSError):
                same = message == before.get("message")
                checkpoint.write_json(path, {"message": message, "repeated": same})
        raise
    path.unlink(missing_ok=True)


def _passing(error):
    return isinstance(error, PASSING) or "CUDA" in str(error) or short_of_memory(error)


def short_of_memory(error):
    """Whether an error says that memory was lacking, on whatever device: torch's of the CPU is a
    plain RuntimeError."""
    told = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def _read(path):
    with suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return {}
