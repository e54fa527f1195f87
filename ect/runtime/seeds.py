"""Seeds for streams of random numbers, each named by its parts."""

import hashlib

import torch


def seed_of(*parts):
    """A 63-bit seed for a stream of random numbers, named by its parts: (seed, what, where)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*parts):
    """A CPU generator for the stream named by its parts."""
    return torch.Generator().manual_seed(seed_of(*parts))
