"""One build for all tests of a session, and what can be made of it: other versions, packages, users.

The build is kept in ``.cache/bundle`` by a hash of what went in, so workers share it, as does the next run.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from building import payload, stamping
from building.installers import layout
from releasing import cli
from tests.packaging.machine import DebPackages, Tarball, User, a_user

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to install a package and to make a user"
)
Stamp = Callable[..., Path]


@pytest.fixture(scope="session")
def bundle() -> layout.Source:
    """Payload and launcher of this source; they are not told of any updates.

    ``OSTLER_TEST_BUNDLE`` names a build to use instead, while one works on the tests alone.
    """
    given = os.environ.get("OSTLER_TEST_BUNDLE")
    built = Path(given).resolve() if given else payload.build()
    return layout.Source(payload=built / "payload", launcher=built / "launcher")


@pytest.fixture(scope="session")
def stamped(bundle: layout.Source, tmp_path_factory: pytest.TempPathFactory) -> Stamp:
    """``stamped(version, broken=None, after_s=…)``: the payload under another version, made once each."""
    made: dict[tuple[str, str | None, float], Path] = {}

    def stamp(version: str, broken: str | None = None, after_s: float = stamping.LATE_S) -> Path:
        wanted = (version, broken, after_s)
        if wanted not in made:
            # Beside the build: so the files can be shared with it.
            place = tmp_path_factory.mktemp("stamped") / version
            made[wanted] = stamping.stamp(bundle.payload, version, place, broken=broken, after_s=after_s)
        return made[wanted]

    return stamp


@dataclass(slots=True)
class Made:
    """All that ``release build`` makes of the bundle, and what it said."""

    files: list[Path]
    said: list[str]

    def of(self, ending: str) -> Path:
        """The one with this ending of its name."""
        (found,) = [path for path in self.files if path.name.endswith(ending)]
        return found


@pytest.fixture(scope="session")
def installers(bundle: layout.Source, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What whoever releases gets of this source on this machine, quickly made."""
    out = tmp_path_factory.mktemp("installers")
    arguments = ["--repository", str(out / "none"), "build", "--fast", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            payload, "build", lambda release: bundle.payload.parent
        )  # that build, whatever was edited since
        done = CliRunner().invoke(cli.release, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return Made([path for path in out.iterdir() if path.is_file()], done.output.splitlines())


@pytest.fixture
def user() -> Iterator[User]:
    """Somebody new on this machine, who is not root."""
    with a_user() as made:
        yield made


@pytest.fixture
def debs(bundle: layout.Source, installers: Made, tmp_path: Path) -> Iterator[DebPackages]:
    """Makes, installs and removes .deb packages; none is left at the end.

    There is one package manager: a test waits until those of other runs on this machine are done with it.
    Within a run the tests are one group (``xdist_group("dpkg")``), so that none waits long. The lock's file
    says while a test may have something installed: what a run that was killed has left is taken away by the
    next, what a person has installed is not.
    """
    packages = DebPackages(bundle, tmp_path / "debs", {bundle.version: installers.of(".deb")})
    with open(Path(tempfile.gettempdir()) / "ostler-tests-dpkg.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if lock.read() and packages.installed():
            packages.purge()
        assert not packages.installed(), "this machine has Ostler installed: tests would take it away"
        lock.write("a test has Ostler installed\n")
        lock.flush()
        try:
            yield packages
        finally:
            if packages.installed():
                packages.purge()
            lock.truncate(0)


@pytest.fixture
def installed_deb(debs: DebPackages) -> DebPackages:
    """Ostler, installed from its .deb."""
    debs.install(debs.make())
    return debs


@pytest.fixture(scope="session")
def archive(installers: Made) -> Path:
    """The archive with the install script, not compressed."""
    return installers.of("-setup.tar")


@pytest.fixture
def installed_tarball(archive: Path, user: User) -> Tarball:
    """Ostler, installed by a user from its archive."""
    tarball = Tarball(user, archive)
    tarball.install()
    return tarball
