from __future__ import annotations

import os
from pathlib import Path

from daemon_core.workdirs.disk import Room, find_artifacts, tree_size

PATTERNS = ("node_modules", ".next", "*.egg-info")


def make(root: Path) -> None:
    for name in (
        "src/a.py", "node_modules/x/node_modules/y", "web/.next/z", "web/.git/node_modules/w", "p.egg-info/q",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 8192)


def test_sizes_are_what_is_allocated(tmp_path: Path) -> None:
    make(tmp_path)
    os.link(tmp_path / "src" / "a.py", tmp_path / "src" / "again.py")
    (tmp_path / "out").symlink_to("/usr")
    size = tree_size(tmp_path, PATTERNS)
    assert 5 * 8192 <= size.total_bytes < 5 * 8192 + 16 * 4096
    assert 3 * 8192 <= size.artifact_bytes < size.total_bytes
    with open(tmp_path / "sparse", "wb") as stream:
        stream.truncate(2**30)
    assert tree_size(tmp_path).total_bytes < 2**20
    assert tree_size(tmp_path / "nothing").total_bytes == 0


def test_artefacts_are_found_by_base_name_outside_of_git(tmp_path: Path) -> None:
    make(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "node_modules").mkdir(parents=True)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(elsewhere)
    (inside / "node_modules").symlink_to(elsewhere)
    found = {str(path.relative_to(tmp_path)) for path in find_artifacts(tmp_path, PATTERNS)}
    assert found == {"node_modules", "web/.next", "p.egg-info", "elsewhere/node_modules"}
    assert list(find_artifacts(inside, PATTERNS)) == []


def test_a_look_at_the_free_space_holds_for_some_seconds(tmp_path: Path) -> None:
    free = 10
    looks = 0
    now = 0.0

    def usage(path: Path) -> tuple[int, int]:
        nonlocal looks
        looks += 1
        return free, 1000

    room = Room([tmp_path, tmp_path / "gone"], 100, usage=usage, clock=lambda: now)
    assert room.due
    (space,) = room.look()
    assert (space.low, space.floor_bytes) == (True, 100)
    assert room.known_low() == space
    free = 500
    assert room.look()[0].low
    assert looks == 1
    now = 6.0
    assert not room.look()[0].low
    assert room.known_low() is None
    room.floor_bytes = 900
    room.forget()
    assert room.look()[0].floor_bytes == 250  # never more than a quarter of the disk
