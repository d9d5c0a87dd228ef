"""Packages that are not what they should be, unpacked into a real store."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon_core.updates import staging
from daemon_core.updates.offers import ProblemError
from daemon_core.updates.staging import CancelledStagingError, check_space, stage
from daemon_core.updates.versions import Store
from tests.updates.mirror import PLATFORM, made_payload, pack
from tests.updates.payloads import write_manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "app")


def put(store: Store, archive: Path, version: str = "1.1.0", **changes: Any) -> None:
    facts: dict[str, Any] = {"platform": PLATFORM, "manifest_sha256": "", "unpacked_bytes": 0}
    stage(store, archive, version, **{**facts, **changes})


def refused(store: Store, archive: Path, **changes: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        put(store, archive, **changes)
    assert caught.value.lasting
    assert store.names() == []
    assert os.listdir(store.versions_dir) == []
    return caught.value.code


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_good_package_becomes_a_version(store: Store, tmp_path: Path) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0", filler=300_000)
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    told: list[int] = []
    put(store, archive, manifest_sha256=sum_of(payload / "manifest.json"), progress=told.append)
    assert store.complete() == ["1.1.0"]
    place = Path(store.directory("1.1.0"))
    assert (place / "ostlerd").stat().st_mode & 0o777 == 0o755
    assert (place / "payload.json").stat().st_mode & 0o777 == 0o644
    assert os.readlink(place / "_internal" / "link") == "library"
    assert told == sorted(told)
    put(store, archive)  # once more is no harm
    assert store.complete() == ["1.1.0"]


Spoil = Callable[[tarfile.TarFile], None]


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"x") -> Spoil:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data) if kind == tarfile.REGTYPE else None)

    return add


@pytest.mark.parametrize(
    "spoil",
    [
        entry("/etc/passwd"),
        entry("../outside"),
        entry("ostler-1.1.0/../../outside"),
        entry("ostler-1.1.0/a/../../b"),
        entry("ostler-1.0.0/other"),
        entry("ostler-1.1.0"),
        entry("ostler-1.1.0/back\\slash"),
        entry("ostler-1.1.0/device", tarfile.CHRTYPE),
        entry("ostler-1.1.0/pipe", tarfile.FIFOTYPE),
        entry("ostler-1.1.0/hard", tarfile.LNKTYPE, "ostler-1.1.0/ostlerd"),
        entry("ostler-1.1.0/out", tarfile.SYMTYPE, "/etc/passwd"),
        entry("ostler-1.1.0/out", tarfile.SYMTYPE, "../../outside"),
        entry("ostler-1.1.0/_internal/out", tarfile.SYMTYPE, "a/../../../outside"),
        entry("ostler-1.1.0/ostlerd"),
        entry("ostler-1.1.0/ostlerd/below"),
        entry("ostler-1.1.0/_internal/library", tarfile.SYMTYPE, "link"),
        entry("ostler-1.1.0/_internal"),
    ],
)
def test_nothing_leaves_the_directory(store: Store, tmp_path: Path, spoil: Spoil) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0")
    archive = tmp_path / "a.tar.xz"
    with tarfile.open(archive, "w:xz", preset=0) as tar:
        tar.add(payload, "ostler-1.1.0")
        spoil(tar)
    assert refused(store, archive) == "archive_unsafe"
    assert not (tmp_path / "outside").exists()


def test_a_link_is_never_written_through(store: Store, tmp_path: Path) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0")
    archive = tmp_path / "a.tar.xz"
    with tarfile.open(archive, "w:xz", preset=0) as tar:
        entry("ostler-1.1.0/way", tarfile.SYMTYPE, "_internal")(tar)
        entry("ostler-1.1.0/way/library", data=b"other")(tar)
        tar.add(payload, "ostler-1.1.0")
    assert refused(store, archive) == "archive_unsafe"


def test_damaged_and_cut_archives(store: Store, tmp_path: Path) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0", filler=100_000)
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    whole = archive.read_bytes()
    for damaged in (whole[:-200], whole[: len(whole) // 2], b"", b"no archive", whole[:2000] + whole[2500:]):
        archive.write_bytes(damaged)
        assert refused(store, archive) in ("archive_damaged", "manifest")
    middle = len(whole) // 2
    archive.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert refused(store, archive) == "archive_damaged"


def test_what_is_larger_than_signed_is_not_unpacked(store: Store, tmp_path: Path) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0")
    (payload / "zeros").write_bytes(bytes(5_000_000))
    write_manifest(payload, "1.1.0")
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    assert archive.stat().st_size < 100_000
    assert refused(store, archive, unpacked_bytes=1_000_000) == "too_large"


@pytest.mark.parametrize("wrong", ["more", "less", "other", "mode", "link"])
def test_files_are_held_against_the_manifest(store: Store, tmp_path: Path, wrong: str) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0")
    match wrong:
        case "more":
            (payload / "extra").write_text("")
        case "less":
            (payload / "ostler").unlink()
        case "other":
            (payload / "_internal" / "library").write_text("Shared by the programs of 1.1.0\n")
        case "mode":
            (payload / "ostlerd").chmod(0o644)
        case "link":
            (payload / "_internal" / "link").unlink()
            (payload / "_internal" / "link").symlink_to("../ostler")
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    assert refused(store, archive) == "manifest"


def test_the_manifest_is_the_signed_one_and_of_this_version(store: Store, tmp_path: Path) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0")
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    assert refused(store, archive, manifest_sha256="0" * 64) == "manifest"
    assert refused(store, archive, platform="windows-x86_64") == "wrong_version"
    assert refused(store, pack(payload, tmp_path / "b.tar.xz", "1.2.0"), version="1.2.0") == "wrong_version"


def test_it_can_be_broken_off(store: Store, tmp_path: Path) -> None:
    payload = made_payload(tmp_path / "payload", "1.1.0")
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    cancel = threading.Event()
    with pytest.raises(CancelledStagingError):
        put(store, archive, cancel=cancel, progress=lambda done: cancel.set())
    assert store.names() == []


def test_room_is_looked_for_first(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "there", 1, 0)
    with pytest.raises(ProblemError) as caught:
        check_space(tmp_path, 2**60, 0)
    params = caught.value.problem.params
    assert caught.value.code == "disk_full"
    assert params["needed"] == 2**60
    assert 0 < params["free"] < 2**60


def test_a_directory_in_the_way_is_a_problem_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "app").write_text("")
    payload = made_payload(tmp_path / "payload", "1.1.0")
    archive = pack(payload, tmp_path / "a.tar.xz", "1.1.0")
    with pytest.raises(ProblemError) as caught:
        put(Store(tmp_path / "app"), archive)
    assert caught.value.code == "disk_error"
    assert not caught.value.lasting


def test_a_linked_directory_is_no_file_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "place" / "inner").mkdir(parents=True)
    (tmp_path / "place" / "way").symlink_to("inner")
    (tmp_path / "place" / "inner" / "file").write_text("")
    assert sorted(staging._names(tmp_path / "place")) == ["inner/file", "way"]
