"""Deterministic operations, by device."""

import pytest
import torch

from ect.runtime import device


def unrepeatable():
    """An operation of which torch has no deterministic version, on any device."""
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))


@pytest.mark.parametrize("warned", [False, True])
def test_a_gpu_gives_the_same_bits_or_an_error_and_only_meanwhile(warned, monkeypatch):
    """It must not only warn: then the gradients of torch's attention differ from run to run. The
    choice of a program that draws from a model is restored, also after an error."""
    monkeypatch.setattr(device, "current", lambda: torch.device("cuda"))
    torch.use_deterministic_algorithms(warned, warn_only=warned)
    try:
        with pytest.raises(RuntimeError, match="does not have a det"), device.deterministic():
            assert not torch.utils.deterministic.fill_uninitialized_memory
            unrepeatable()
        assert torch.are_deterministic_algorithms_enabled() == warned
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warned
        assert torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_cpu_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(device, "current", lambda: torch.device("cpu"))
    with device.deterministic():
        unrepeatable()
