from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.home import OstlerHome


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    """A home whose processes are gone when the test ends."""
    made = OstlerHome(tmp_path)
    yield made
    made.close()
