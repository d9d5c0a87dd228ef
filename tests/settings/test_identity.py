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


def test_a_copy_survives_what_clears_the_state(tmp_path: Path) -> None:
    path, copy = tmp_path / "state-id", tmp_path / "data-id"
    made = load_or_create(path, copy)
    assert copy.read_text() == path.read_text()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    path.unlink()
    assert load_or_create(path, copy) == made
    copy.write_text("nonsense")
    assert load_or_create(path, copy) == made
    assert copy.read_text() == path.read_text()


def test_a_damaged_one_is_mended_from_its_copy(tmp_path: Path) -> None:
    path, copy = tmp_path / "state-id", tmp_path / "data-id"
    made = load_or_create(path, copy)
    other = new_id()
    path.write_text(f"{other} {made.daemon_id} nonsense")
    mended = load_or_create(path, copy)
    assert (mended.daemon_id, mended.legacy_ids) == (made.daemon_id, (other,))
    assert mended.damaged is not None
    assert load_or_create(path, copy).legacy_ids == (other,)
    assert load_or_create(copy).legacy_ids == (other,)


def test_nothing_of_it_depends_on_the_hosts_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "daemon.id"
    made = load_or_create(path)
    monkeypatch.setattr("socket.gethostname", lambda: "renamed")
    assert load_or_create(path) == made
    assert made.legacy_ids == ()
