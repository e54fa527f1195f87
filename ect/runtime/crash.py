"""No retry of a job that ends with the same error each time. Loads no torch.

Snakemake retries a failed job and passes the number of the attempt. The error that ended an attempt
is noted in `.k12.crash.json` beside the outputs `k12`; after two attempts with the same error the
next one is refused. A new run of Snakemake counts from 1, and so tries again.

A run that diverged is refused at once, whoever starts it: a note in its work folder holds its
fingerprint, the code, and the image at which it diverged.
"""

from contextlib import contextmanager, suppress
from pathlib import Path

from ect.runtime import checkpoint, record, stop
from ect.runtime.text import one_line

# Errors whose cause may be gone at the next attempt: a full disk, a lost device, memory that other
# programs used, another process. A divergence has a note of its own.
PASSING = (
    stop.Stopped,
    stop.Obstacle,
    checkpoint.CheckpointError,
    OSError,
    FloatingPointError,
)


def note_of(out):
    """The path of the note on the crash of a job with these outputs."""
    path = Path(out).resolve()
    return path.with_name(f".{path.name}.crash.json")


@contextmanager
def noted(out, attempt):
    """Run the block as attempt 1, 2, ... of a job: note its error, or delete the note if it
    succeeds; the first forgets what an earlier run noted. Raises `ValueError` if the two attempts
    before ended with the same error."""
    path = note_of(out)
    if attempt == 1:
        _forget(path)
    before = _read(path, {"message": str})
    if before.get("repeated") is True:
        raise ValueError(
            f"two attempts ended with {one_line(before['message'])}; this run of Snakemake makes no"
            " third, the next one does"
        )
    try:
        yield
    except Exception as error:
        if not _passing(error):
            message = " ".join(
                [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]
            )
            with suppress(OSError, checkpoint.CheckpointError):
                same = message == before.get("message")
                checkpoint.write_json(path, {"message": message, "repeated": same})
        raise
    _forget(path)


def _forget(path):
    with suppress(IsADirectoryError):
        path.unlink(missing_ok=True)


def _passing(error):
    return isinstance(error, PASSING) or "CUDA" in str(error) or short_of_memory(error)


def short_of_memory(error):
    """Whether an error means out of memory, on any device: on the CPU torch raises a plain
    RuntimeError."""
    phrases = ("out of memory", "can't allocate memory", "insufficient memory")
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in said for phrase in phrases)


def _read(path, needed):
    """What a note says; {} if it is none, or lacks what is `needed`."""
    with suppress(ValueError):
        return checkpoint.read_json(path, needed)
    return {}


def note_divergence(path, fingerprint, image, message):
    """Note that the run with this fingerprint diverges at `image`, so that it is not retried."""
    what = {"fingerprint": fingerprint, "code": record.code()}
    checkpoint.write_json(path, what | {"image": image, "message": message})


def refuse_to_repeat(path, fingerprint, image):
    """Raise `FloatingPointError` if this run, now at `image`, is known to diverge later; otherwise
    delete the note."""
    if not path.is_file():
        return
    note = _read(path, {"message": str, "image": int})
    known = [note.get("fingerprint"), note.get("code")] == [fingerprint, record.code()]
    if known and image < note["image"]:
        raise FloatingPointError(
            f"{one_line(note['message'])} (known from before; to try again, delete {path})"
        )
    path.unlink()
