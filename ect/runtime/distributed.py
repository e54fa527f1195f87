"""One job in several processes, started by torchrun. With one process every function here does
nothing.

Process k of n computes the k-th of n contiguous parts of each batch. The gradients are summed over
the processes: all take the step of the whole batch, and their weights stay equal. Every process
gets the loss terms of all images, so all notice a divergence. When images are sampled, each process
draws every n-th batch. Only the first process writes.
"""

import hashlib
import os
import sys
from contextlib import contextmanager, suppress

import torch
from torch import distributed

from ect.runtime import device, progress, stop
from ect.runtime.text import whole


def world():
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first():
    """Whether this process is the one that writes."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def number(name):
    """The number in a variable that torchrun or `lease` sets; raises `ValueError` that names it."""
    return whole(name, os.environ[name], 0, 2**31 - 1)


def parents():
    """(process id of the parent, whether the process that started torchrun is alive; None without
    torchrun). A run for which this changes is orphaned."""
    starter = os.environ.get("ECT_STARTER")
    return os.getppid(), None if starter is None else progress.alive(number("ECT_STARTER"))


def torchrun_ended(before):
    """Whether torchrun has ended: one of several processes has another parent than `before`, which
    `parents` returned."""
    return world() > 1 and os.getppid() != before[0]


@contextmanager
def together():
    """Join the processes that torchrun started, each on its own device, until the block ends.

    When all processes stop together (asked to, or diverged), only the first reports it. Raises
    `ValueError` if there are too few GPUs.
    """
    if not distributed.is_torchelastic_launched():
        yield
        return
    _join()
    try:
        yield
    except (stop.Stopped, FloatingPointError) as end:
        _leave()
        if number("RANK") == 0:
            raise
        sys.exit(getattr(end, "code", 1))
    else:
        _leave()


def _join():
    on_gpus = device.current().type == "cuda"
    if on_gpus:
        asked, found = number("LOCAL_WORLD_SIZE"), torch.cuda.device_count()
        if asked > found:
            raise ValueError(f"found {asked} processes; allowed: {found}, one for each visible GPU")
        torch.cuda.set_device(number("LOCAL_RANK"))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")


def _leave():
    with suppress(ValueError):  # do not wait for a process that has ended
        all_max(0)
    distributed.destroy_process_group()


def _all(collective, *arguments, **options):
    """A collective call; raises `stop.Obstacle` if another process has ended."""
    try:
        collective(*arguments, **options)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise stop.Obstacle(f"another process of this run has ended ({reason})") from None


def slice_of(size):
    """This process's part of a batch."""
    return _slice(distributed.get_rank(), size) if world() > 1 else slice(0, size)


def _slice(rank, size):
    return slice(rank * size // world(), (rank + 1) * size // world())


def require_shares(size):
    """Raise `ValueError` if a batch of `size` images has fewer images than there are processes."""
    if size < world():
        raise ValueError(
            f"the run's smallest batch has {size} images; allowed: {world()} or more, one for each"
            " process"
        )


def sum_gradients(parameters):
    """Replace the gradients of each process by their sum over all processes, in one all-reduce."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _all(distributed.all_reduce, flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts):
        gradient.copy_(part.view_as(gradient))


def all_gather(terms, size):
    """Gather loss terms from all processes. `terms`: tensors with one number for each image of this
    process; the result: the same tensors for the whole batch of `size` images."""
    if world() == 1:
        return terms
    missing = -(-size // world()) - len(terms[0])
    padded = torch.nn.functional.pad(torch.stack(terms), (0, missing))
    gathered = [torch.empty_like(padded) for _ in range(world())]
    _all(distributed.all_gather, gathered, padded)
    shares = [_slice(rank, size) for rank in range(world())]
    parts = [part[:, : share.stop - share.start] for part, share in zip(gathered, shares)]
    return list(torch.cat(parts, dim=1).unbind())


def map_batches(parts, compute, shape):
    """Yield compute(part), a uint8 array (len(part), *shape), for each part in order. The processes
    compute in turn; the first yields all arrays, the others none."""
    if world() == 1:
        yield from map(compute, parts)
        return
    most = max(map(len, parts))
    for start in range(0, len(parts), world()):
        turn, sent = parts[start : start + world()], torch.zeros((most, *shape), dtype=torch.uint8)
        if distributed.get_rank() < len(turn):
            part = turn[distributed.get_rank()]
            computed = torch.from_numpy(compute(part))
            sent[: len(part)] = computed
        gathered = [torch.empty_like(sent) for _ in range(world())] if is_first() else None
        _all(distributed.gather, sent, gathered)
        for part, array in zip(turn, gathered or ()):  # same strides: convolutions depend on them
            like = torch.empty_strided((len(part), *shape), computed.stride(), dtype=torch.uint8)
            yield like.copy_(array[: len(part)]).numpy()


def all_max(*numbers):
    """The maximum of each whole number over all processes. It does not wait for a GPU."""
    if world() == 1:
        return numbers
    values = torch.tensor(numbers, dtype=torch.int64)
    _all(distributed.all_reduce, values, op=distributed.ReduceOp.MAX)
    return values.tolist()


@contextmanager
def first_before_the_others():
    """Let the first process finish the block before the others enter it."""
    if not is_first():
        all_max(0)
    yield
    if is_first():
        all_max(0)


def require_same(tensors):
    """Raise `ValueError` if the processes do not hold the same bits."""
    if world() == 1:
        return
    sha256 = hashlib.sha256()
    for value in tensors.values():
        sha256.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest = int.from_bytes(sha256.digest()[:7], "big")
    most, least = all_max(digest, -digest)
    if most != -least:
        raise ValueError("the processes of this run do not start from the same weights")
