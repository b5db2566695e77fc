"""The measurements of the machine do what is counted."""

from __future__ import annotations

import numpy as np
import torch

from pointwise.costs import machine

EPS = torch.finfo(torch.float32).eps


def test_the_chains_of_the_fma_measurement_do_what_is_counted():
    expected = machine.starts(programs=3)
    for _ in range(5):
        expected = expected * np.float32(0.5) + np.float32(0.5)
    found = machine.run_chains(steps=5, programs=3)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(machine.starts(3))) == found.size  # no two chains are alike


def test_the_streams_of_the_cache_measurement_do_what_is_counted():
    size, programs = 4 * machine.REGISTER_BYTES * 3, 5
    a, b = (torch.randn(programs * size // 4) for _ in range(2))
    c = torch.full_like(a, torch.nan)
    how = {"repeats": 2, "size": size, "row": machine.REGISTER_BYTES}
    arguments = machine._STREAM(a=a, b=c, c=None, **how)
    machine.launch(machine._scale, arguments, programs)
    assert torch.equal(c, 3 * a)
    arguments = machine._STREAM(a=a, b=b, c=c, **how)
    machine.launch(machine._triad, arguments, programs)
    # Rounded once, where the two steps of the definition round twice.
    torch.testing.assert_close(c, a + 3 * b, rtol=2 * EPS, atol=2 * EPS * 3 * float(b.abs().max()))


def test_caches_are_measured():
    found = machine.caches(seconds=0.001)
    sizes = [size for size, _ in found]
    assert sizes[0] == 2**17
    assert sizes == sorted(sizes)
    assert machine.last_cache() / 1.5 < sizes[-1] <= machine.last_cache()
    assert all(rate > 0 for _, rate in found)


def test_a_processor_that_linux_does_not_name(monkeypatch):
    arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"
    monkeypatch.setattr(machine.Path, "read_text", lambda *_, **__: arm)
    monkeypatch.setattr(machine, "processor", lambda: "neoverse-n1")
    assert machine.cpu_name() == f"neoverse-n1 ({machine.ISA.title})"
