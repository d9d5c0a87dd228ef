"""The daemon's id: made once, kept, never lost to damage."""

from __future__ import annotations

import stat
import time
import uuid
from pathlib import Path

import pytest

from daemon_core.settings.identity import load_or_create, new_id


def test_an_id_is_a_uuid_of_version_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    found = uuid.UUID(new_id())
    assert found.version == 7
    assert found.variant == uuid.RFC_4122
    assert before <= found.int >> 80 <= time.time_ns() // 1_000_000
    assert len({new_id() for _ in range(1000)}) == 1000


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "daemon.id"
    made = load_or_create(path)
    assert load_or_create(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"{made.daemon_id}\n"


@pytest.mark.parametrize("left", ["", "\0" * 40, "{old} and more", "garbage\n{old}\n", "{old}f"])
def test_a_damaged_one_is_set_aside_and_what_it_named_is_kept(tmp_path: Path, left: str) -> None:
    path = tmp_path / "daemon.id"
    old = new_id()
    path.write_text(left.format(old=old))
    made = load_or_create(path)
    assert made.daemon_id != old
    assert made.legacy_ids == ((old,) if "{old}" in left and "}f" not in left else ())
    assert made.damaged is not None
    assert made.damaged.read_text() == left.format(old=old)
    again = load_or_create(path)
    assert (again.daemon_id, again.legacy_ids, again.damaged) == (made.daemon_id, made.legacy_ids, None)
