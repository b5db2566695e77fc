from __future__ import annotations

import pytest
import torch
from toys import TinyClouds, TinyImages, TinyPoints

import pointwise.networks


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    for network in (TinyPoints, TinyClouds, TinyImages):
        monkeypatch.setattr(pointwise.networks, network.__name__, network, raising=False)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Layers this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
