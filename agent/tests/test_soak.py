"""A quarter of an hour of a worker's life passes in seconds here; `agent/tests/soak.py` does days."""

from __future__ import annotations

import platform

import pytest

from . import soak

pytestmark = pytest.mark.long


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_no_outcome_is_lost_or_doubled_and_memory_stays_flat() -> None:
    figures = soak.soak(hours=0.25, speed=150)
    assert figures.runs >= 40
    assert figures.faults > 0
    assert (figures.lost, figures.doubled, figures.exit_code) == (0, 0, 0)
    # A slow leak shows only after hours. This finds memory that grows with every request.
    assert figures.growth_kib <= soak.LARGEST_GROWTH_KIB
    assert figures.last_quarter.threads < figures.runs
