"""Task directories: the user's pass every rule, ours are never mixed up, and nothing else is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from daemon_core.workdirs import DirectoryRefusedError, TaskDirectories, validate_user_directory
from daemon_core.workdirs.directories import Stamp, is_protected
from tests.processes.conftest import needs_root


def refused(path: object) -> str:
    with pytest.raises(DirectoryRefusedError) as error:
        validate_user_directory(str(path))
    assert str(path).strip() == "" or error.value.path
    return error.value.code


# --- the user's directories ----------------------------------------------------------------------


def test_a_good_directory_is_given_cleaned_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert validate_user_directory(f"{tmp_path}/sub/..//sub/.") == tmp_path / "sub"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["", "   ", "relative", "./x", "~/x", "/x\0y", "/x\ud800"])
def test_what_is_no_absolute_path(path: str) -> None:
    with pytest.raises(DirectoryRefusedError) as error:
        validate_user_directory(path)
    assert error.value.code == "not_absolute"


PLACES = ["/", "/Users", "/Users/Shared", "/home", "/root", "/var", "/etc", "/tmp", "/usr", "/opt"]


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("form", ["{}", "{}/", "/{}", "{}/.", "/usr/../{}"])
def test_protected_places_in_any_spelling(path: str, form: str) -> None:
    assert refused(form.format(path)) == "protected"


@pytest.mark.parametrize("target", ["/", "/etc", "/tmp", "/usr", "/var"])
def test_a_link_to_a_protected_place(tmp_path: Path, target: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(target)
    assert refused(link) == "protected"
    further = tmp_path / "further"
    further.symlink_to(link)
    assert refused(further) == "protected"


def test_the_home_directory_by_name_and_by_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "link").symlink_to(home)
    assert refused(home) == "protected"
    assert refused(tmp_path / "link") == "protected"
    assert validate_user_directory(str(home / "project")) == home / "project"
    monkeypatch.setenv("HOME", str(tmp_path / "link"))  # a home that is itself a link
    assert refused(home) == "protected"


def test_a_place_inside_a_protected_one_is_none(tmp_path: Path) -> None:
    assert not is_protected("/usr/local/src", "/home/ada")
    assert not is_protected("/home/ada/project", "/home/ada")


def test_what_is_not_there_or_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert refused(tmp_path / "nothing") == "not_found"
    assert refused(tmp_path / "dangling") == "not_found"
    assert refused(tmp_path / "file") == "not_a_directory"
    assert refused(tmp_path / "file" / "below") == "not_readable"
    assert refused(tmp_path / ("x" * 300)) == "not_readable"


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[Path], str]:
    """Validate as a user whom file modes stop."""

    def validate(path: Path) -> str:
        code = (
            "import os,sys; os.setgid(65534); os.setuid(65534)\n"
            "from daemon_core.workdirs import *\n"
            "try: validate_user_directory(sys.argv[1]); print('good')\n"
            "except DirectoryRefusedError as error: print(error.code)\n"
        )
        # The interpreter below the root's own home can be read by root alone: loaded before the change.
        code = "import daemon_core.workdirs, tempfile, random, encodings.idna\n" + code
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    for part in [tmp_path, *tmp_path.parents]:
        if part.stat().st_uid == os.getuid() and part != Path("/") and "pytest" in str(part):
            part.chmod(0o755)
    return validate


@needs_root
def test_a_directory_without_the_rights_for_it(tmp_path: Path, as_nobody: Callable[[Path], str]) -> None:
    for name, mode in (("closed", 0o700), ("readable", 0o755), ("unlisted", 0o733), ("open", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    assert as_nobody(tmp_path / "closed") == "not_readable"
    assert as_nobody(tmp_path / "readable") == "not_writable"
    assert as_nobody(tmp_path / "unlisted") == "not_readable"
    assert as_nobody(tmp_path / "open") == "good"


# --- ours ------------------------------------------------------------------------------------------


TASK = "0123abcd-0000-4000-8000-000000000001"
ALIKE = "0123abcd-0000-4000-8000-000000000002"


@pytest.fixture
def ours(tmp_path: Path) -> TaskDirectories:
    return TaskDirectories(tmp_path / "workspaces")


def test_a_task_gets_a_directory_of_its_own(ours: TaskDirectories) -> None:
    made = ours.prepare("ws-1", TASK, "")
    assert made == ours.root.resolve() / "ws-1" / "0123abcd" / "workdir"
    assert list(made.iterdir()) == []
    assert made.stat().st_mode & 0o777 == 0o700
    assert ours.owns(str(made))
    assert ours.owns(f"{made}/")


def test_tasks_whose_ids_begin_alike_never_share_one(ours: TaskDirectories) -> None:
    assert len({ours.prepare("ws", task, "") for task in (TASK, ALIKE, "0123abcd-x")}) == 3


def test_a_try_that_died_is_taken_up_again(ours: TaskDirectories) -> None:
    made = ours.prepare("ws", TASK, "")
    (made / "begun").touch()
    assert ours.prepare("ws", TASK, "") == made
    assert (made / "begun").exists()


def test_a_directory_of_unknown_origin_is_left_alone(ours: TaskDirectories) -> None:
    foreign = ours.root / "ws" / "0123abcd"
    foreign.mkdir(parents=True)
    made = ours.prepare("ws", TASK, "")
    assert made.parent.name == "0123abcd-2"
    assert list(foreign.iterdir()) == []


def test_a_directory_whose_task_has_ended_is_not_used_for_another_try(ours: TaskDirectories) -> None:
    made = ours.prepare("ws", TASK, "")
    ours.stamp(str(made), Stamp(task_id=TASK))
    assert ours.prepare("ws", TASK, "") != made


def test_a_conversation_keeps_its_directory(ours: TaskDirectories) -> None:
    made = ours.prepare("ws", TASK, "")
    (made / "work").touch()
    ours.stamp(str(made), Stamp(task_id=TASK))
    assert ours.prepare("ws", ALIKE, str(made)) == made
    assert (made / "work").exists()


def test_a_prior_directory_that_is_not_ours_is_refused(ours: TaskDirectories, tmp_path: Path) -> None:
    made = ours.prepare("ws", TASK, "")
    (made / "deep" / "workdir").mkdir(parents=True)
    (tmp_path / "workdir").mkdir()
    (ours.root / "ws" / "x").mkdir()
    (ours.root / "ws" / "x" / "workdir").symlink_to(tmp_path / "workdir")
    foreign = [
        "/", "/etc", str(tmp_path), str(tmp_path / "workdir"), str(ours.root), str(made.parent),
        str(made.parent.parent), str(made / "deep"), str(made / "deep" / "workdir"),
        str(ours.root / "ws" / "x" / "workdir"), f"{made}/../../../../workdir", "workdir", "",
        "/x\0", "/x\ud800", str(ours.root / "ws" / "gone" / "workdir"),
    ]  # fmt: skip
    for number, prior in enumerate(foreign):
        found = ours.prepare("ws2", f"{number:08x}", prior)
        assert found == ours.root.resolve() / "ws2" / f"{number:08x}" / "workdir", prior


def test_ids_of_a_server_cannot_lead_anywhere_else(ours: TaskDirectories) -> None:
    for workspace, task in (("../../x", "../../y"), ("", ""), ("/etc", "/etc"), (".", "."), ("a b\0", "ü")):
        made = ours.prepare(workspace, task, "")
        assert made.is_relative_to(ours.root.resolve())
        assert ours.owns(str(made))


def test_a_stamp_is_beside_our_directory_and_never_in_the_users(
    ours: TaskDirectories, tmp_path: Path
) -> None:
    made = ours.prepare("ws", TASK, "")
    ours.stamp(str(made), Stamp(kind="chat", chat_session_id="c", task_id=TASK, completed_at="now"))
    assert list(made.iterdir()) == []
    found = msgspec.json.decode((made.parent / ".gc_meta.json").read_bytes())
    assert found == {"kind": "chat", "chat_session_id": "c", "task_id": TASK, "completed_at": "now"}
    theirs = tmp_path / "theirs" / "workdir"
    theirs.mkdir(parents=True)
    ours.stamp(str(theirs), Stamp(task_id=TASK))
    assert list(theirs.parent.iterdir()) == [theirs]


def test_only_ours_are_removed(ours: TaskDirectories, tmp_path: Path) -> None:
    made = ours.prepare("ws", TASK, "")
    other = ours.prepare("ws", ALIKE, "")
    (made / "link").symlink_to(tmp_path)
    (tmp_path / "keep").touch()
    theirs = tmp_path / "theirs" / "workdir"
    theirs.mkdir(parents=True)
    planted = ours.root / "ws" / "planted"
    planted.mkdir()
    (planted / "workdir").symlink_to(theirs)
    linked = ours.root / "ws" / "linked"
    linked.mkdir()
    (linked / "workdir").symlink_to(other)
    for path in (
        str(theirs), str(planted / "workdir"), str(linked / "workdir"), str(made.parent), str(ours.root),
        "", "/", str(made / "gone" / "workdir"),
    ):  # fmt: skip
        assert not ours.remove(path), path
    assert ours.remove(str(made))
    assert not ours.remove(str(made))
    assert not made.parent.exists()
    assert other.exists()
    assert theirs.exists()
    assert (tmp_path / "keep").exists()
