"""The launcher as a process: it becomes what is to run, and says one sentence where it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daemon_core.settings.directories import resolve
from daemon_core.updates.launcher import called_as, clean_environment, is_start, profile_of
from daemon_core.updates.pointer import Trial
from daemon_core.updates.versions import Store, app_directory, lock_file
from tests.updates.payloads import write_installation, write_payload


class Installed:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.launcher = write_installation(root / "installed", "1.0")
        self.environ = {**os.environ, "OSTLER_HOME": str(root / "o")}
        self.store = Store(root / "o" / "data" / "app", str(root / "installed" / "payload" / "1.0"))

    def run(self, program: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.launcher / program), *arguments],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def put(self, version: str, programs: dict[str, str] | None = None) -> None:
        place = self.root / "made" / version
        if not place.exists():
            write_payload(place, version, programs)
        with self.store.staging() as staging:
            shutil.copytree(place, staging.path, symlinks=True, dirs_exist_ok=True)
            assert staging.publish(version)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


@pytest.mark.parametrize("program", ["ostler", "ostlerd", "ostler-desktop"])
def test_it_becomes_the_program_it_is_called_as(installed: Installed, program: str) -> None:
    done = installed.run(program, "--profile", "work")
    assert (done.stdout, done.stderr, done.returncode) == (f"{program} 1.0 --profile work\n", "", 0)
    copied = installed.store.is_complete("1.0")
    assert copied == (program != "ostler"), "a command is not held up by the copy"
    assert installed.run("ostler", f"--as={program}", "x").stdout == f"{program} 1.0 x\n"


def test_the_exit_code_is_the_programs(installed: Installed) -> None:
    installed.put("1.1", {"ostler": "#!/bin/sh\nexit 42\n"})
    installed.store.change(lambda pointer: pointer._replace(version="1.1"))
    assert installed.run("ostler").returncode == 42


def test_the_version_is_leased_by_what_runs_from_it_and_the_environment_is_clean(
    installed: Installed,
) -> None:
    show = '#!/bin/sh\nenv\necho "lease $(readlink /proc/self/fd/$OSTLER_LEASE_FD)"\n'
    installed.put("1.1", {"ostler": show})
    installed.store.change(lambda pointer: pointer._replace(version="1.1"))
    said = installed.run(
        "ostler",
        _PYI_ARCHIVE_FILE="/x",
        LD_LIBRARY_PATH="/bundle",
        LD_LIBRARY_PATH_ORIG="/mine",
        OSTLER_TRIAL="x",
    ).stdout.splitlines()
    assert f"OSTLER_LAUNCHER={installed.launcher}" in said
    assert "LD_LIBRARY_PATH=/mine" in said
    assert f"lease {installed.store.leases_dir}/1.1" in said
    assert not [line for line in said if line.startswith(("_PYI", "OSTLER_TRIAL", "LD_LIBRARY_PATH_ORIG"))]


def test_a_program_that_cannot_be_executed_gives_way_to_one_that_can(installed: Installed) -> None:
    installed.put("1.1", {"ostler": "#!/nowhere/at/all\n"})
    installed.store.change(lambda pointer: pointer._replace(version="1.1", previous="1.0"))
    assert installed.run("ostler", "x").stdout == "ostler 1.0 x\n"


def test_where_there_is_nothing_one_sentence_says_so(installed: Installed) -> None:
    shutil.rmtree(installed.root / "installed" / "payload")
    for program in ("ostler", "ostlerd", "ostler-desktop"):
        done = installed.run(program)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("ostler: Ostler cannot be started")


def test_where_all_that_is_there_is_broken_one_sentence_says_so(installed: Installed) -> None:
    for name in ("ostler", "ostlerd"):
        path = installed.root / "installed" / "payload" / "1.0" / name
        path.chmod(0o644)
    done = installed.run("ostlerd")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "Permission denied" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_runs_the_installers_own(installed: Installed) -> None:
    data = installed.root / "o" / "data"
    data.mkdir(parents=True)
    data.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert installed.run("ostlerd").stdout == "ostlerd 1.0 \n"
    finally:
        data.chmod(0o700)


@pytest.mark.parametrize(
    "place", ["app", "app/versions", "app/leases", "app/current.json", "app/switch.lock"]
)
def test_what_is_out_of_reach_does_not_keep_the_installers_own_from_running(
    installed: Installed, place: str
) -> None:
    path = installed.root / "o" / "data" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)  # whoever opens it gets an error, root too
    for program in ("ostlerd", "ostler", "ostler-desktop"):
        assert installed.run(program).stdout == f"{program} 1.0 \n"


def test_a_home_that_is_no_directory_runs_the_installers_own(installed: Installed) -> None:
    (installed.root / "o").write_text("in the way")
    assert installed.run("ostlerd").stdout == "ostlerd 1.0 \n"
    assert installed.run("ostler").stdout == "ostler 1.0 \n"


def test_two_first_starts_at_once_copy_one_seed(installed: Installed) -> None:
    starts = [
        subprocess.Popen(
            [str(installed.launcher / "ostlerd")], env=installed.environ, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [start.communicate()[0] for start in starts] == ["ostlerd 1.0 \n"] * 3
    assert installed.store.complete() == ["1.0"]
    assert os.listdir(installed.store.versions_dir) == ["1.0"]


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["/usr/bin/ostlerd", "-v"], ("ostlerd", ["-v"])),
        (["ostler.exe", "--as=ostler-desktop"], ("ostler-desktop", [])),
        (["x", "--as=ostler", "--as=ostlerd", "run"], ("ostlerd", ["run"])),
        (["python", "-m"], ("ostler", ["-m"])),
        ([], ("ostler", [])),
    ],
)
def test_its_name_or_first_argument_says_what_is_meant(argv: list[str], meant: object) -> None:
    assert called_as(argv) == meant


def test_the_profile_is_the_options_else_the_variables() -> None:
    assert profile_of(["--profile", "work"], {}) == "work"
    assert profile_of(["--profile=work"], {"OSTLER_PROFILE": "other"}) == "work"
    assert profile_of(["--foreground"], {"OSTLER_PROFILE": "other"}) == "other"
    assert profile_of(["--profile"], {}) == "default"


def test_a_question_to_the_daemon_is_no_start_of_a_trial(installed: Installed) -> None:
    assert is_start([])
    assert is_start(["--profile", "work", "--foreground"])
    assert is_start(["--profile=work"])
    installed.put("1.1")
    installed.run("ostlerd")
    installed.store.begin_trial(Trial(version="1.1", id="t"))
    for question in ("--version", "--help", "--profile"):
        assert installed.run("ostlerd", question).stdout == f"ostlerd 1.0 {question}\n"
    trial = installed.store.pointer().trial
    assert trial is not None
    assert trial.starts == 0


@pytest.mark.parametrize("profile", ["default", "work"])
@pytest.mark.parametrize(
    "environ",
    [
        {"OSTLER_HOME": "/some/place"},
        {"OSTLER_HOME": "~/place"},
        {},
        {"XDG_DATA_HOME": "/data", "XDG_STATE_HOME": "/state"},
        {"XDG_DATA_HOME": "", "XDG_STATE_HOME": ""},
    ],
    ids=str,
)
def test_the_launcher_finds_the_same_places_as_everybody_else(
    environ: dict[str, str], profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OSTLER_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    directories = resolve(os.environ, profile)
    assert app_directory(os.environ) == str(directories.app)
    assert lock_file(os.environ, profile) == str(directories.lock_file)


def test_a_bundles_own_variables_are_not_handed_on() -> None:
    given = {
        "_PYI_X": "1",
        "LD_LIBRARY_PATH_ORIG": "",
        "LD_LIBRARY_PATH": "/bundle",
        "A": "b",
        "OSTLER_TRIAL": "x",
    }
    assert clean_environment(given) == {"A": "b"}


def test_a_start_loads_next_to_nothing() -> None:
    program = "import sys, daemon_core.updates.launcher; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout.split()
    heavy = {"asyncio", "dataclasses", "pathlib", "subprocess", "logging", "tempfile", "shutil", "inspect"}
    assert not heavy & set(loaded)
