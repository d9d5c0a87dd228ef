"""Fixtures of the hub's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.hub.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A hub with a shell and a claude runtime registered."""
    made = World(tmp_path / "data" / "hub.db")
    await made.open()
    await made.register("shell", "claude")
    yield made
    await made.close()


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[World]:
    """A hub that nobody has registered with."""
    made = World(tmp_path / "data" / "hub.db")
    await made.open()
    yield made
    await made.close()
