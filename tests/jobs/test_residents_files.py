"""Residents' files: what they say, what is wrong with one, and the one value that is changed in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.jobs.residents import building
from daemon_core.jobs.residents.enabling import CannotEditError, set_enabled
from daemon_core.jobs.residents.files import (
    Catalog,
    EnvFileError,
    Mistake,
    Resident,
    read,
    read_env_file,
)

WHOLE = """\
# a resident
id: watcher
name: The Watcher
version: 1.5
description: |
  Watches.
command: [./bin/watch, --port, 8080]
directory: ~/watch
env_file: .env
enabled: false
restart:
  policy: always
  from: 2s
  to: 1m
  give_up_after: 3
  within: 5m
stop:
  grace: 30s
build:
  command: make -s 'all the things'
  when: always
  inputs: [src, Makefile]
  time_limit: 1h
memory: memory
cache: [.cache, tmp]
log:
  size: 1MB
  files: 3
pid_file: run/pid
"""


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_everything_that_a_file_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = read(write(tmp_path, "w.yaml", WHOLE))
    assert isinstance(found, Resident)
    assert found.argv == ("./bin/watch", "--port", "8080")
    assert (found.version, found.directory, found.enabled) == ("1.5", "/home/me/watch", False)
    assert found.env_file == "/home/me/watch/.env"
    assert (found.restart.policy, found.restart.first_s, found.restart.last_s) == ("always", 2.0, 60.0)
    assert (found.restart.give_up_after, found.restart.within_s, found.grace_s) == (3, 300.0, 30.0)
    assert found.build is not None
    assert found.build.argv == ("make", "-s", "all the things")
    assert (found.memory, found.cache) == (("memory",), (".cache", "tmp"))
    assert (found.log_bytes, found.log_files, found.pid_file) == (10**6, 3, "/home/me/watch/run/pid")


def test_what_is_left_out(tmp_path: Path) -> None:
    found = read(write(tmp_path, "w.yaml", "id: one\ncommand: sleep 9\n"))
    assert isinstance(found, Resident)
    assert (found.name, found.argv, found.directory) == ("one", ("sleep", "9"), str(tmp_path))
    assert found.enabled
    assert found.restart.policy == "on-failure"
    found = read(
        write(tmp_path, "p.yaml", "id: two\nprovider: claude\narguments: [--serve]\nrestart: never\n")
    )
    assert isinstance(found, Resident)
    assert (found.provider, found.argv, found.restart.policy) == ("claude", ("--serve",), "never")


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "empty"),
        ("- a\n- b\n", 1, "names and values"),
        ("command: x\n", 1, "id is missing"),
        ("id: A\ncommand: x\n", 1, "cannot be an id"),
        ("id: ../x\ncommand: x\n", 1, "cannot be an id"),
        ("id: x\n", 1, "either a command or a provider"),
        ("id: x\ncommand: y\nprovider: z\n", 2, "either a command or a provider"),
        ("id: x\ncommand: y\nenabled: maybe\n", 3, "true or false"),
        ("id: x\ncommand: y\n\n# note\nrestarts: always\n", 5, "not known"),
        ("id: x\ncommand: y\nrestart:\n  policy: always\n  from: 5\n", 5, "duration"),
        ("id: x\ncommand: y\nrestart:\n  from: 5m\n  to: 1m\n", 5, "shorter"),
        ("id: x\ncommand: y\nlog: {size: 1}\n", 3, "at least"),
        ("id: x\ncommand: y\nlog: 5\n", 3, "below it"),
        ("id: x\ncommand: 'y\n", 3, "not valid YAML"),
        ("id: x\n\tcommand: y\n", 2, "not valid YAML"),
        ("id: x\ncommand: y\nid: z\n", 3, "twice"),
        ("id: x\ncommand: &a [y]\nenv: [*a, *a]\n", 3, "references"),
        ("id: x\ncommand:\n  " + "- " * 20_000, 3, "nested too deeply"),
        ("id: x\ncommand: &a [y]\nbuild: *a\n", 3, "references"),
        ("id: x\ncommand: y 'z\n", 2, "quotation mark"),
        ("id: x\ncommand: [y, [z]]\n", 2, "no text"),
        ("id: off\ncommand: y\n", 1, "must be a text"),
        ("id: x\ncommand: y\nbuild: {when: changed}\n", 3, "no command"),
        ("id: x\ncommand: !!python/object/apply:os.system [y]\n", 2, "not valid YAML"),
    ],
)
def test_mistakes_have_a_line(tmp_path: Path, text: str, line: int, part: str) -> None:
    found = read(write(tmp_path, "w.yaml", text))
    assert isinstance(found, Mistake), found
    assert part in found.what
    assert found.line is not None
    assert abs(found.line - line) <= (1 if "YAML" in part else 0), found


@given(st.text(max_size=200))
def test_whatever_is_in_a_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert isinstance(read(path), Mistake | Resident)


def test_a_directory_of_them(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "residents")
    catalog.look()
    assert catalog.residents == {}
    catalog.directory.mkdir()
    write(catalog.directory, "a.yaml", "id: a\ncommand: x\n")
    write(catalog.directory, "b.yml", "# another one\nid: a\ncommand: y\n")
    write(catalog.directory, "c.yaml", "id: [")
    write(catalog.directory, "notes.txt", "nothing")
    assert catalog.look()
    assert list(catalog.residents) == ["a"]
    assert catalog.residents["a"].argv == ("x",)
    double, broken = catalog.mistakes
    assert (os.path.basename(double.file), double.line) == ("b.yml", 2)
    assert "a.yaml" in double.what
    assert os.path.basename(broken.file) == "c.yaml"
    assert not catalog.look()
    (catalog.directory / "a.yaml").unlink()
    assert catalog.look()
    assert catalog.residents["a"].argv == ("y",)


# --- the one value ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("id: a\nenabled: true\ncommand: x\n", "id: a\nenabled: false\ncommand: x\n"),
        ("id: a\nenabled:   yes # why\ncommand: x\n", "id: a\nenabled:   false # why\ncommand: x\n"),
        ("id: a\r\nenabled: true\r\ncommand: x\r\n", "id: a\r\nenabled: false\r\ncommand: x\r\n"),
        ("id: a\ncommand: x\n# the end", "id: a\nenabled: false\ncommand: x\n# the end"),
        ("command: x\nid: a", "command: x\nid: a\nenabled: false\n"),
        ('"enabled": on\nid: a\ncommand: x\n', '"enabled": false\nid: a\ncommand: x\n'),
        (
            "id: a\ncommand: x\ndescription: |\n  enabled: true\nenabled: true\n",
            "id: a\ncommand: x\ndescription: |\n  enabled: true\nenabled: false\n",
        ),
        ("\ufeffid: a\ncommand: x\nenabled: true\n", "\ufeffid: a\ncommand: x\nenabled: false\n"),
    ],
)
def test_only_that_value_changes(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(before.encode())
    path.chmod(0o640)
    assert set_enabled(path, False)
    assert path.read_bytes().decode() == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not set_enabled(path, False)
    assert set_enabled(path, True)
    assert read(path).enabled is True  # type: ignore[union-attr]
    assert [each.name for each in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "{id: a, command: x}\n",
        "{id: a, command: x, enabled: true}\n",
        "? enabled\n: true\n? id\n: a\n",
        "id: [",
    ],
)
def test_what_cannot_be_changed_with_certainty_is_left(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(CannotEditError):
        set_enabled(path, False)
    assert path.read_text() == text


def test_a_link_leads_to_the_file_that_changes(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    target = write(tmp_path / "dotfiles", "a.yaml", "id: a\ncommand: x\n")
    link = tmp_path / "a.yaml"
    link.symlink_to(target)
    set_enabled(link, False)
    assert link.is_symlink()
    assert "enabled: false" in target.read_text()


@given(
    st.lists(
        st.sampled_from(
            [
                "# enabled: true\n",
                "\n",
                "name: a b\n",
                "description: 'enabled: true'\n",
                "memory:\n  - m # x\n",
            ]
        ),
        unique=True,
    ),
    st.booleans(),
    st.sampled_from(["", "enabled: true\n", "enabled: false # no\n", "enabled: True\n"]),
    st.integers(0, 5),
)
def test_every_other_line_stays(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], wanted: bool, own: str, at: int
) -> None:
    rows = ["id: a\n", "command: x\n", *rows]
    rows.insert(at, own)
    path = tmp_path_factory.getbasetemp() / "every.yaml"
    path.write_text("".join(rows))
    before = yaml.safe_load(path.read_text())
    set_enabled(path, wanted)
    after = path.read_text()
    assert yaml.safe_load(after) == (
        before if wanted and not own else {**before, "enabled": wanted}  # that it is on need not be said
    )
    left = [row for row in after.splitlines() if not row.startswith("enabled:")]
    assert left == [row for row in "".join(rows).splitlines() if not row.startswith("enabled:")]


# --- environment --------------------------------------------------------------------------------------


def test_an_environment_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ".env",
        '# keys\nA=1\nexport B = two words # note\nC=\'as it $is \\n\'\nD="x\\ny \\"q\\""\nE=\nF=a#b\n'
        'G="over\ntwo lines"\nA=2\n',
    )
    assert read_env_file(str(path)) == {
        "A": "2",
        "B": "two words",
        "C": "as it $is \\n",
        "D": 'x\ny "q"',
        "E": "",
        "F": "a#b",
        "G": "over\ntwo lines",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\nsecret\n", 2), ("1A=secret\n", 1), ("A='secret\n\n", 1), ("A='secret' more\n", 1)],
)
def test_mistakes_do_not_tell_the_value(tmp_path: Path, text: str, line: int) -> None:
    path = write(tmp_path, ".env", text)
    with pytest.raises(EnvFileError) as found:
        read_env_file(str(path))
    assert found.value.line == line
    assert "secret" not in str(found.value).removeprefix(str(path))


def test_no_environment_file(tmp_path: Path) -> None:
    with pytest.raises(EnvFileError, match="cannot be read"):
        read_env_file(str(tmp_path / "none"))


# --- build --------------------------------------------------------------------------------------------


def test_when_a_build_is_due(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    source = write(tmp_path / "src", "a.c", "1")
    file = write(tmp_path, "w.yaml", "id: a\ncommand: x\nbuild: {command: make, inputs: [src, Makefile]}\n")
    found = read(file)
    assert isinstance(found, Resident)
    first = building.due(found, "", asked=False)
    assert first
    assert building.due(found, first, asked=False) is None
    assert building.due(found, first, asked=True) == first
    source.write_text("12")
    second = building.due(found, first, asked=False)
    assert second not in (None, first)
    write(tmp_path, "Makefile", "all:")
    assert building.due(found, second or "", asked=False)


def test_the_example_is_one() -> None:
    found = read(Path(__file__).parents[2] / "resources" / "resident.example.yaml")
    assert isinstance(found, Resident), found
    assert found.id == "watcher"
    assert found.build is not None
