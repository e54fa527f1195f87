"""Several processes that do one job, as torchrun starts them; alone, all of this is nothing.

Process k of n computes the k-th of n contiguous parts of each batch. The gradients are added up, so
all take the step of the whole batch, from equal weights to equal weights; every process knows the
terms of every image, and so whether all is well. Of images to draw, each process draws every n-th
batch. The first alone writes.
"""

import hashlib
import os
import sys
from contextlib import contextmanager, suppress

import torch
from torch import distributed

from ect import machine, progress, running


def world():
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first():
    """Whether this process is the one that writes."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def parents():
    """This process's parent, and whether the one is alive that started torchrun for it (None where
    nobody did): a run for which this changes is an orphan's."""
    starter = os.environ.get("ECT_STARTER")
    return os.getppid(), None if starter is None else running.alive(int(starter))


def torchrun_ended(before):
    """Whether this process is one of several, and another's child than `before` (see `parents`)."""
    return world() > 1 and os.getppid() != before[0]


@contextmanager
def together():
    """Join the processes that torchrun started, each on its own device, until the block ends.

    Of an end that all reach at once (stopped, diverged) the first process tells. Raises
    `ValueError` where there are too few GPUs.
    """
    if not distributed.is_torchelastic_launched():
        yield
        return
    _join()
    try:
        yield
    except (progress.Stopped, FloatingPointError) as end:
        _leave()
        if int(os.environ["RANK"]) == 0:
            raise
        sys.exit(getattr(end, "code", 1))
    else:
        _leave()


def _join():
    on_gpus = machine.device().type == "cuda"
    if on_gpus:
        asked, found = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if asked > found:
            raise ValueError(f"found {asked} processes; allowed: {found}, one for each visible GPU")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")


def _leave():
    with suppress(ValueError):  # whoever is gone need not be waited for
        agreed(0)
    distributed.destroy_process_group()


def _all(collective, *given, **options):
    """A collective call; raises `progress.Obstacle` where another process has ended."""
    try:
        collective(*given, **options)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise progress.Obstacle(f"another process of this run has ended ({reason})") from None


def slice_of(size):
    """This process's part of a batch."""
    return _slice(distributed.get_rank(), size) if world() > 1 else slice(0, size)


def _slice(rank, size):
    return slice(rank * size // world(), (rank + 1) * size // world())


def require_shares(size):
    """Raises `ValueError` where a batch has not an image for each process."""
    if size < world():
        raise ValueError(
            f"the run's smallest batch has {size} images; allowed: {world()} or more, one for each"
            " process"
        )


def add_up(parameters):
    """Replace the gradients of each process by their sum over all, in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    _all(distributed.all_reduce, whole)
    parts = whole.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts):
        gradient.copy_(part.view_as(gradient))


def gathered(terms, size):
    """Terms of this process's images, tensors of one length, as those of a batch of `size`."""
    if world() == 1:
        return terms
    missing = -(-size // world()) - len(terms[0])
    own = torch.nn.functional.pad(torch.stack(terms), (0, missing))
    found = [torch.empty_like(own) for _ in range(world())]
    _all(distributed.all_gather, found, own)
    shares = [_slice(rank, size) for rank in range(world())]
    parts = [part[:, : share.stop - share.start] for part, share in zip(found, shares)]
    return list(torch.cat(parts, dim=1).unbind())


def in_turn(parts, compute, shape):
    """compute(part), a uint8 array (len(part), *shape), of each part in order. The processes
    compute them by turns; the first yields them all, the others none."""
    if world() == 1:
        yield from map(compute, parts)
        return
    most = max(map(len, parts))
    for start in range(0, len(parts), world()):
        turn, sent = parts[start : start + world()], torch.zeros((most, *shape), dtype=torch.uint8)
        if distributed.get_rank() < len(turn):
            part = turn[distributed.get_rank()]
            own = torch.from_numpy(compute(part))
            sent[: len(part)] = own
        found = [torch.empty_like(sent) for _ in range(world())] if is_first() else None
        _all(distributed.gather, sent, found)
        for part, array in zip(turn, found or ()):  # in the layout of one: convolutions see it
            like = torch.empty_strided((len(part), *shape), own.stride(), dtype=torch.uint8)
            yield like.copy_(array[: len(part)]).numpy()


def agreed(*numbers):
    """The greatest that any process says, of each whole number. It does not wait for a GPU."""
    if world() == 1:
        return numbers
    told = torch.tensor(numbers, dtype=torch.int64)
    _all(distributed.all_reduce, told, op=distributed.ReduceOp.MAX)
    return told.tolist()


@contextmanager
def first_before_the_others():
    """The first process is through the block before the others enter it."""
    if not is_first():
        agreed(0)
    yield
    if is_first():
        agreed(0)


def require_same(tensors):
    """Raises `ValueError` where the processes do not hold the same bits."""
    if world() == 1:
        return
    whole = hashlib.sha256()
    for value in tensors.values():
        whole.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    own = int.from_bytes(whole.digest()[:7], "big")
    most, least = agreed(own, -own)
    if most != -least:
        raise ValueError("the processes of this run do not start from the same weights")
