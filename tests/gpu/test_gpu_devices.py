"""Which devices kernels run on, and what is said where they do not."""

from __future__ import annotations

import pytest
import torch

from pointwise.engine import gpu, library


@pytest.fixture
def compiled(monkeypatch):
    """As where Triton compiles its kernels."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    gpu._why_not_device.cache_clear()
    yield
    gpu._why_not_device.cache_clear()


def test_other_devices_are_named(compiled):
    assert "not on cpu" in gpu.why_not(torch.device("cpu"))


def test_a_device_that_is_too_old_is_named(compiled, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert gpu.why_not(torch.device("cuda", 0)) == (
        "Tesla T4 has compute capability 7.5, and they need 8.0"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert gpu.why_not(torch.device("cuda", 1)) is None


def test_without_triton_the_plain_form_runs_and_it_is_said_once(monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    gpu._has_triton.cache_clear()
    library._warn_once.cache_clear()
    run = library._where_it_can(lambda x: "kernel", lambda x: "plain")
    with pytest.warns(UserWarning, match="Triton is not installed") as said:
        assert run(torch.zeros(1)) == run(torch.zeros(1)) == "plain"
    assert len(said) == 1
    gpu._has_triton.cache_clear()
    library._warn_once.cache_clear()


def test_where_kernels_can_run_they_do():
    run = library._where_it_can(lambda x: "kernel", lambda x: "plain")

    assert run(torch.zeros(1)) == "kernel"
