"""The release tool dies at every single file operation: clients always find a repository that they accept."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon_core.updates.files import Files
from releasing import upkeep
from releasing.errors import ReleaseError

from .releases import Releases


class Death(BaseException):
    """The process is gone: nothing catches this."""


class DyingFiles(Files):
    """Does so many changes, and of the next one only a half.

    Args:
        left: How many changes are done.
        error: What the next one raises; after an error of the system the later ones work again.
    """

    def __init__(self, left: int, error: type[BaseException] = Death) -> None:
        self.left = left
        self.done: list[tuple[str, str]] = []
        self._error = error

    def _step(self, what: str, path: str) -> bool:
        """Whether this change is the one that fails."""
        self.done.append((what, Path(path).name))
        self.left -= 1
        return self.left == -1 or (self.left < -1 and self._error is Death)

    def _fail(self, path: str) -> None:
        if self._error is Death:
            raise Death
        raise OSError(errno.ENOSPC, "No space left on device", path)

    def make_directory(self, path: str) -> None:
        if self._step("mkdir", path):
            self._fail(path)
        super().make_directory(path)

    def create(self, path: str, data: bytes, mode: int = 0o600) -> None:
        if self._step("create", path):
            super().create(path, data[: len(data) // 2], mode)
            self._fail(path)
        super().create(path, data, mode)

    def copy(self, source: str, target: str, mode: int) -> None:
        if self._step("copy", target):
            super().create(target, self.read(source)[:100], mode)
            self._fail(target)
        super().copy(source, target, mode)

    def sync(self, path: str) -> None:
        if not Path(path).is_dir() and self._step("sync", path):
            self._fail(path)
        super().sync(path)

    def sync_directory(self, path: str) -> None:
        if self._step("sync_directory", path):
            self._fail(path)
        super().sync_directory(path)

    def replace(self, old: str, new: str) -> None:
        if self._step("replace", new):
            self._fail(new)
        super().replace(old, new)

    def unlink(self, path: str) -> None:
        if self._step("unlink", path):
            self._fail(path)
        super().unlink(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    made = Releases(tmp_path_factory.mktemp("release") / "base").init()
    made.publish("1.0")
    made.package("1.1")
    made.client().look()  # a client that knows the state before
    return made


def publish(releases: Releases, files: Files) -> None:
    with releases.repository(files).locked():
        releases.publish("1.1", files=files)


def resign(releases: Releases, files: Files) -> None:
    upkeep.resign(releases.repository(files), releases.ring(), ("root", "targets", "snapshot", "timestamp"))


def rotate(role: str) -> Callable[[Releases, Files], None]:
    def run(releases: Releases, files: Files) -> None:
        repository = releases.repository(files)
        place = releases.offline if role in ("root", "targets") else releases.online
        keyid = repository.root().signed.roles[role].keyids[0]
        upkeep.rotate_key(repository, releases.ring(), role, keyid, place)

    run.__name__ = f"rotate {role}"
    return run


CHANGES = [publish, resign, *(rotate(role) for role in ("root", "targets", "timestamp"))]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
def test_a_death_at_any_operation_leaves_what_clients_accept(
    base: Releases, tmp_path: Path, change: Callable[[Releases, Files], None]
) -> None:
    counted = base.copy(tmp_path / "counted")
    files = DyingFiles(10_000)
    change(counted, files)
    assert len(files.done) > 5
    for at in range(len(files.done)):
        hit = base.copy(tmp_path / "hit")
        with pytest.raises(Death):
            change(hit, DyingFiles(at))
        known = hit.client()  # came with the copy: has seen the state before
        assert known.versions() in ({"1.0"}, {"1.0", "1.1"}), files.done[at]
        fresh = hit.client("fresh")
        for path in fresh.look():
            fresh.fetch(path)
        _again(hit, change)
        assert known.versions() == hit.client("later").versions()
        shutil.rmtree(hit.place)


def _again(hit: Releases, change: Callable[[Releases, Files], None]) -> None:
    """The same once more, by whoever comes back to it; it may have been done after all."""
    if change is publish and "1.1" in hit.client().versions():
        with pytest.raises(ReleaseError, match="published already"):
            change(hit, Files())
    else:
        change(hit, Files())


def test_a_disk_that_fills_up_changes_nothing_for_clients(base: Releases, tmp_path: Path) -> None:
    counted = base.copy(tmp_path / "counted")
    files = DyingFiles(10_000)
    publish(counted, files)
    for at in [index for index, (what, _name) in enumerate(files.done) if what in ("copy", "create")]:
        hit = base.copy(tmp_path / "hit")
        with pytest.raises(OSError, match="No space left"):
            publish(hit, DyingFiles(at, OSError))
        assert hit.client().versions() == {"1.0"}
        publish(hit, Files())
        assert hit.client().versions() == {"1.0", "1.1"}
        shutil.rmtree(hit.place)


def test_everything_is_on_the_disk_before_the_timestamp_leads_to_it(base: Releases, tmp_path: Path) -> None:
    """A power cut may lose what was not synced, whatever was written first."""
    counted = base.copy(tmp_path / "counted")
    files = DyingFiles(10_000)
    publish(counted, files)
    names = [(what, name) for what, name in files.done if what != "unlink"]
    last = names.index(("replace", "timestamp.json"))
    assert names[last + 1 :] == [("sync_directory", "metadata")]
    replaced = [name for what, name in names[:last] if what == "replace"]
    assert [name.split(".", 1)[1] for name in replaced[-2:]] == ["targets.json", "snapshot.json"]
    assert len(replaced) == 4, "full package, delta, targets, snapshot"
    for name in [*replaced, "timestamp.json"]:
        synced = names.index(("sync", f".{name}.part"))
        assert synced < names.index(("replace", name))
    before = names[:last]
    assert before.index(("sync_directory", "targets")) > max(
        before.index(("replace", name)) for name in replaced[:2]
    )
    assert before.index(("sync_directory", "metadata")) > before.index(("replace", replaced[-1]))
