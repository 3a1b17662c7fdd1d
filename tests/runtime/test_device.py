"""The device that a program takes, and what is known of it."""

import pytest
import torch

from ddpm.runtime.device import default_device, device_of, has_bfloat16, wait


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Says which GPUs this machine is to have."""

    def has(*, cuda: bool, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_a_program_takes_the_gpu_that_there_is(cuda: bool, mps: bool, expected: str, machine):
    machine(cuda=cuda, mps=mps)
    assert default_device().type == device_of("auto").type == device_of("gpu").type == expected
    assert device_of("cpu").type == "cpu"
    assert device_of("cuda").type == ("cuda" if cuda else "cpu")
    assert device_of("mps").type == ("mps" if mps else "cpu")


@pytest.mark.parametrize(("capability", "has"), [((7, 0), False), ((7, 5), False), ((8, 0), True)])
def test_gpus_before_ampere_have_no_bfloat16(
    capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda")) == has


def test_waiting_for_a_gpu_is_its_own_synchronisation(monkeypatch: pytest.MonkeyPatch):
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    wait(torch.device("mps"))
    wait(torch.device("cpu"))
    assert waited == ["mps"]
