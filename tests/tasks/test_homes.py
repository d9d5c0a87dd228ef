from __future__ import annotations

import os
from pathlib import Path

from daemon_core.tasks import homes

NOW = 1_800_000_000.0
MONTH_S = 30 * 86400.0


def make_home(tmp_path: Path, directory: Path, used_at: float) -> Path:
    """A home as a run in ``directory`` has left it."""
    directory.mkdir(exist_ok=True)
    home = tmp_path / "state" / homes.HOMES / homes._name_of(str(directory))
    (home / "codex-home").mkdir(parents=True)
    users = tmp_path / "user"
    users.mkdir(exist_ok=True)
    (users / "auth.json").write_text("theirs")
    (home / "codex-home" / "auth.json").symlink_to(users / "auth.json")
    (home / "codex-home" / "sessions").symlink_to(users, target_is_directory=True)
    for path in (home / "codex-home", home):
        os.utime(path, (used_at, used_at))
    return home


async def test_homes_of_directories_that_nobody_works_in_go_and_what_they_lead_to_stays(
    tmp_path: Path,
) -> None:
    runs_dir = tmp_path / "state" / "runs"
    old = make_home(tmp_path, tmp_path / "old", NOW - MONTH_S - 60)
    recent = make_home(tmp_path, tmp_path / "recent", NOW - MONTH_S + 60)
    busy = make_home(tmp_path, tmp_path / "busy", NOW - 2 * MONTH_S)
    half = make_home(tmp_path, tmp_path / "half", NOW)
    half = half.rename(half.with_name(half.name + ".gone"))  # a removal that was interrupted
    removed = await homes.forget_unused(runs_dir, NOW - MONTH_S, lambda: [str(tmp_path / "busy")])
    assert removed == 2
    assert sorted((tmp_path / "state" / homes.HOMES).iterdir()) == sorted([recent, busy])
    assert not old.exists()
    assert not half.exists()
    assert (tmp_path / "user" / "auth.json").read_text() == "theirs"


async def test_where_there_are_none_nothing_happens(tmp_path: Path) -> None:
    assert await homes.forget_unused(tmp_path / "state" / "runs", NOW, list) == 0
