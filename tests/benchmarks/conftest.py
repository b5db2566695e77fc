from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def frozen_again():
    """A measurement lets the collector go through everything again: here, a whole session."""
    yield
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()
