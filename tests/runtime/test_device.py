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


@pytest.mark.parametrize(
    "there, visible, build, told",
    [
        (True, None, None, "is a build for CPUs; computing on the CPU"),
        (True, "1", "13.0", "wants a newer driver or another GPU: its CUDA is 13.0"),
        (True, "", "13.0", None),
        (True, "-1", None, None),
        (False, None, "13.0", None),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told_once(there, visible, build, told, monkeypatch, capsys):
    monkeypatch.setattr(device.shutil, "which", lambda name: name if there else None)
    monkeypatch.setattr(device.Path, "exists", lambda path: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    device.warn_of_an_idle_gpu.cache_clear()
    for _ in range(2):
        device.warn_of_an_idle_gpu()
    said = capsys.readouterr().err
    assert said.count("\n") == bool(told) and (told or "") in said
    device.warn_of_an_idle_gpu.cache_clear()
