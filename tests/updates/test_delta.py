"""Deltas: whatever two trees they were made from, they lead from one to the other or say they do not."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import random
import resource
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_core.updates.delta import (
    CHUNK_BYTES,
    MAGIC,
    MANIFEST,
    STEP,
    DeltaError,
    apply,
    read_manifest,
    sum_bytes,
)
from releasing.deltas import make

Tree = dict[str, bytes | str]
"""Path to content; a string is a symbolic link's target."""

NAMES = st.sampled_from(
    ["ostler", "ostlerd", "_internal/libcore.so.1", "_internal/libcore.so.2", "_internal/a/b", "LICENSE", "é"]
)
SEEDS = st.integers(0, 5)
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), SEEDS, st.integers(0, 9000)),
    # A file of which a piece changed, moved or went: what a patch is for.
    st.builds(
        lambda seed, at, piece, gone: (
            (base := random.Random(seed).randbytes(6000))[:at] + piece + base[at + gone :]
        ),
        SEEDS,
        st.integers(0, 6000),
        st.binary(max_size=60),
        st.integers(0, 3000),
    ),
)
TREES = st.dictionaries(NAMES, CONTENTS, max_size=5)


def write_tree(directory: Path, tree: Tree, version: str = "1") -> Path:
    """A payload directory as the bundle makes it, manifest last."""
    directory.mkdir(parents=True)
    files: dict[str, object] = {}
    for path, content in tree.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.symlink_to(content)
            files[path] = {"link": content}
        else:
            target.write_bytes(content)
            mode = 0o755 if "/" not in path else 0o644
            target.chmod(mode)
            files[path] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "mode": mode}
    manifest = {"format": 1, "version": version, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


def snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777)
    found[MANIFEST] = (found[MANIFEST][0],) if MANIFEST in found else ()
    return found


def packed(header: dict[str, object], manifest: bytes, *bodies: bytes) -> bytes:
    text = json.dumps({"manifest_bytes": len(manifest), **header}).encode()
    return lzma.compress(MAGIC + b"%d\n" % len(text) + text + manifest + b"".join(bodies), preset=0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(old=TREES, new=TREES)
def test_a_delta_leads_from_any_tree_to_any_other(old: Tree, new: Tree) -> None:
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        old_dir, new_dir = write_tree(here / "old", old), write_tree(here / "new", new, "2")
        make(old_dir, new_dir, here / "delta")
        apply(old_dir, here / "delta", here / "made")
        assert snapshot(here / "made") == snapshot(new_dir)
        before = (here / "delta").read_bytes()
        make(old_dir, new_dir, here / "delta")
        assert (here / "delta").read_bytes() == before, "the same two trees give the same delta"


OLD: Tree = {
    "ostlerd": random.Random(1).randbytes(9000),
    "_internal/same": b"same" * 100,
    "_internal/gone": b"gone",
    "link": "_internal/same",
}
NEW: Tree = {
    "ostlerd": random.Random(1).randbytes(9000)[:5000] + b"changed" + random.Random(1).randbytes(9000)[5000:],
    "_internal/same": b"same" * 100,
    "_internal/new/file": b"new",
    "other-link": "_internal/new/file",
}


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    write_tree(tmp_path / "old", OLD)
    write_tree(tmp_path / "new", NEW, "2")
    make(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    return tmp_path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_delta_gives_the_right_tree_or_none(trees: Path, data: st.DataObject) -> None:
    """Damage to the packed file, and to what is in it (where no sum of xz helps)."""
    raw = (trees / "delta").read_bytes()
    inner = data.draw(st.booleans())
    content = bytearray(lzma.decompress(raw) if inner else raw)
    at = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
    if kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[at:]
    elif kind == "insert":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        del content[at : at + data.draw(st.integers(1, 50))]
    (trees / "damaged").write_bytes(lzma.compress(bytes(content)) if inner else bytes(content))
    promised = hashlib.sha256((trees / "new" / MANIFEST).read_bytes()).hexdigest()
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "made"
        try:
            apply(trees / "old", trees / "damaged", made, manifest_sha256=promised)
        except DeltaError:
            assert not made.exists()
        else:
            assert snapshot(made) == snapshot(trees / "new")


def replace(path: Path, put: Callable[[Path], None]) -> None:
    path.unlink()
    put(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda old: (old / "ostlerd").write_bytes(b"x" * 9000),
        lambda old: (old / "ostlerd").write_bytes(b""),
        lambda old: (old / "_internal/same").write_bytes(b"Same" * 100),
        lambda old: (old / "_internal/same").unlink(),
        lambda old: replace(old / "_internal/same", lambda path: path.symlink_to("/etc/passwd")),
        lambda old: replace(old / "_internal/same", os.mkfifo),
        lambda old: (old / MANIFEST).unlink(),
        lambda old: (old / MANIFEST).write_text("{"),
    ],
    ids=["changed", "emptied", "copied file changed", "gone", "link", "pipe", "no manifest", "bad manifest"],
)
def test_a_version_that_is_not_what_it_was_is_no_start(trees: Path, spoil: Callable[[Path], object]) -> None:
    spoil(trees / "old")
    with pytest.raises(DeltaError):
        apply(trees / "old", trees / "delta", trees / "made")
    assert not (trees / "made").exists()


def entry(data: bytes) -> dict[str, object]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": 0o644}


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/x",
        "a/../../x",
        "a//b",
        "./a",
        "a\\b",
        "C:x",
        "a\0b",
        "",
        MANIFEST,
        "Manifest.json",
        "a/b./c",
        "con\n",
    ],
)
def test_a_path_outside_is_refused(trees: Path, path: str) -> None:
    manifest = json.dumps({"files": {path: entry(b"x")}}).encode()
    (trees / "evil").write_bytes(packed({"parts": [{"path": path, "kind": "whole"}]}, manifest, b"x"))
    with pytest.raises(DeltaError):
        apply(trees / "old", trees / "evil", trees / "made")
    assert sorted(each.name for each in trees.iterdir()) == ["delta", "evil", "new", "old"]


@pytest.mark.parametrize(
    "files",
    [
        {"a": {"link": "../x"}},
        {"a": {"link": "/etc"}},
        {"d/a": {"link": "../../x"}},
        {"a": {"link": "b/../../x"}},
        {"a": {"link": "."}, "a/b": entry(b"x")},
        {"a": entry(b"x"), "a/b": entry(b"x")},
        {"a": entry(b"x"), "A": entry(b"x")},
        {"a": {**entry(b"x"), "mode": 0o4755}},
        {"a": {**entry(b"x"), "size": -1}},
        {"a": {**entry(b"x"), "size": 1 << 50}},
        {"a": {**entry(b"x"), "sha256": None}},
        {"a": []},
        [],
    ],
)
def test_a_manifest_that_asks_for_odd_things_is_refused(files: object) -> None:
    with pytest.raises(DeltaError):
        read_manifest(json.dumps({"files": files}).encode())


def test_a_patch_cannot_read_or_write_beyond_its_files(trees: Path) -> None:
    manifest = json.dumps({"files": {"ostlerd": entry(b"y" * 10)}}).encode()
    header: dict[str, object] = {"parts": [{"path": "ostlerd", "kind": "patch", "old": "ostlerd"}]}
    for steps in (
        STEP.pack(2**63, 0, 0),
        STEP.pack(0, 11, 0) + b"y" * 11,
        STEP.pack(0, 1, -5) + b"y" + STEP.pack(9, 0, 0) + b"\0" * 9,
        STEP.pack(0, 1, 8995) + b"y" + STEP.pack(9, 0, 0) + b"\0" * 9,
        STEP.pack(0, 1, 2**62) + b"y" + STEP.pack(9, 0, 0) + b"\0" * 9,
        STEP.pack(0, 0, 0),
    ):
        (trees / "evil").write_bytes(packed(header, manifest, steps))
        with pytest.raises(DeltaError):
            apply(trees / "old", trees / "evil", trees / "made")


def test_a_delta_of_endless_zeros_takes_little_memory_and_no_disk(trees: Path) -> None:
    """A few kilobytes that unpack to a great many where the manifest wants three."""
    manifest = json.dumps({"files": {"a": entry(b"abc")}}).encode()
    bomb = packed({"parts": [{"path": "a", "kind": "whole"}]}, manifest, b"abc", bytes(64 << 20))
    (trees / "bomb").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(DeltaError, match="longer than it says"):
            apply(trees / "old", trees / "bomb", trees / "made")
        assert tracemalloc.get_traced_memory()[1] < 24 * CHUNK_BYTES
    finally:
        tracemalloc.stop()
    huge = {"size": 3 << 30, "sha256": "0" * 64, "mode": 0o644}
    (trees / "bomb").write_bytes(packed({"parts": []}, json.dumps({"files": {"a": huge}}).encode()))
    with pytest.raises(DeltaError):
        apply(trees / "old", trees / "bomb", trees / "made")


def test_another_manifest_than_the_promised_one_is_refused(trees: Path) -> None:
    with pytest.raises(DeltaError, match="promised"):
        apply(trees / "old", trees / "delta", trees / "made", manifest_sha256="0" * 64)


def test_a_full_disk_leaves_nothing_behind(trees: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            apply(trees / "old", trees / "delta", trees / "made")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (trees / "made").exists()


def test_what_is_there_is_never_written_into(trees: Path) -> None:
    (trees / "made").mkdir()
    (trees / "made/kept").write_text("kept")
    with pytest.raises(ValueError, match="not empty"):
        apply(trees / "old", trees / "delta", trees / "made")
    assert (trees / "made/kept").read_text() == "kept"


def test_a_small_change_makes_a_small_delta(tmp_path: Path) -> None:
    base = random.Random(7).randbytes(400_000)
    old: Tree = {"ostlerd": base, "_internal/libicu.so.73.1": base[::-1]}
    new: Tree = {
        "ostlerd": base[:1000] + b"!" * 300 + base[1200:],
        "_internal/libicu.so.73.2": base[::-1] + b"?",
    }
    made = make(write_tree(tmp_path / "old", old), write_tree(tmp_path / "new", new, "2"), tmp_path / "delta")
    assert made.size < 3000
    assert set(made.patched) == set(new)
    apply(tmp_path / "old", tmp_path / "delta", tmp_path / "made")
    assert snapshot(tmp_path / "made") == snapshot(tmp_path / "new")


@given(st.binary(min_size=1, max_size=50), st.data())
def test_sums_of_bytes_carry_nothing_over(left: bytes, data: st.DataObject) -> None:
    right = data.draw(st.binary(min_size=len(left), max_size=len(left)))
    assert sum_bytes(left, right) == bytes((a + b) % 256 for a, b in zip(left, right, strict=True))
