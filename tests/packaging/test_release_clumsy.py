"""Whoever releases makes mistakes: each ends in a sentence, and clients see what they saw before."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from releasing import archives, changelog, cli, publishing, upkeep
from releasing.errors import KeyMissingError, PassphraseError, ReleaseError
from releasing.keys import KeyRing, Passphrases

from .releases import PASSPHRASE, PLATFORM, Releases, payload


@pytest.fixture(scope="module")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    made = Releases(tmp_path_factory.mktemp("release") / "made").init()
    made.publish("1.0")
    return made


@pytest.fixture
def releases(_published: Releases, tmp_path: Path) -> Releases:
    return _published.copy(tmp_path / "own")


def publish(releases: Releases, version: str, ring: KeyRing | None = None) -> None:
    publishing.publish(
        releases.repository(), ring or releases.ring(), version, releases.dist.iterdir(), {"en": ["-"]}
    )


# --- keys ------------------------------------------------------------------------------------------------


def test_a_wrong_passphrase(releases: Releases) -> None:
    releases.package("1.1")
    with pytest.raises(PassphraseError, match="passphrase of targets-1 is wrong"):
        publish(releases, "1.1", releases.ring(passphrase="battery staple"))
    assert releases.client().versions() == {"1.0"}


def test_nobody_to_ask_for_a_passphrase(releases: Releases) -> None:
    releases.package("1.1")
    with pytest.raises(PassphraseError, match="OSTLER_RELEASE_PASSPHRASE_TARGETS"):
        publish(releases, "1.1", KeyRing([releases.offline, releases.online], Passphrases({})))


def test_a_missing_key_is_named_and_found_at_another_place(releases: Releases) -> None:
    releases.package("1.1")
    stick = releases.place / "stick"
    stick.mkdir()
    for path in releases.offline.glob("targets-2.*"):
        path.rename(stick / path.name)
    with pytest.raises(KeyMissingError, match="targets needs 2 of 2 keys, 1 at hand"):
        publish(releases, "1.1")
    publish(releases, "1.1", releases.ring(releases.offline, releases.online, stick))
    assert releases.client().versions() == {"1.0", "1.1"}


def test_a_key_that_others_can_read(releases: Releases) -> None:
    (releases.online / "timestamp-1.pem").chmod(0o644)
    with pytest.raises(ReleaseError, match="can be read by others"):
        upkeep.resign(releases.repository(), releases.ring())


def test_key_files_that_were_swapped(releases: Releases) -> None:
    shutil.copy(releases.offline / "targets-1.pem", releases.online / "timestamp-1.pem")
    with pytest.raises(ReleaseError, match="is another key than"):
        upkeep.resign(releases.repository(), releases.ring())


def test_a_key_from_the_environment(releases: Releases) -> None:
    environ = {
        f"OSTLER_RELEASE_KEY_{role.upper()}": (releases.online / f"{role}-1.pem").read_text()
        for role in ("snapshot", "timestamp")
    }
    shutil.rmtree(releases.online)
    passphrases = Passphrases(
        {"OSTLER_RELEASE_PASSPHRASE_SNAPSHOT": PASSPHRASE, "OSTLER_RELEASE_PASSPHRASE": PASSPHRASE}
    )
    assert upkeep.resign(releases.repository(), KeyRing([], passphrases, environ))[0] == [
        "snapshot",
        "timestamp",
    ]
    assert releases.client().versions() == {"1.0"}


@pytest.mark.parametrize(
    ("said", "wrong"),
    [(["short"], "fewer than"), (["long enough", "long enouhg"], "differ"), ([""], "no passphrase")],
)
def test_a_new_passphrase_is_typed_twice_and_not_too_short(
    tmp_path: Path, said: list[str], wrong: str
) -> None:
    answers = iter(said)
    ring = KeyRing([], Passphrases({}, ask=lambda prompt: next(answers)))
    with pytest.raises(PassphraseError, match=wrong):
        ring.make("targets", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_making_a_second_repository_over_the_first(releases: Releases) -> None:
    places = dict.fromkeys(("root", "targets", "snapshot", "timestamp"), releases.offline)
    with pytest.raises(ReleaseError, match="has a repository already"):
        upkeep.init(releases.repository(), releases.ring(), places)
    shutil.rmtree(releases.place / "repo")
    with pytest.raises(ReleaseError, match="never written over"):
        upkeep.init(releases.repository(), releases.ring(), places)


# --- versions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "wrong"),
    [
        ("1.0", "published already"),
        ("0.9", "newer than 0.9"),
        ("1.0rc1", "newer than 1.0rc1"),
        ("1.3", "there is no ostler-1.3-"),
        ("../1", "is no version"),
    ],
)
def test_a_version_that_cannot_come_next(releases: Releases, version: str, wrong: str) -> None:
    if version in ("0.9", "1.0rc1"):
        releases.package(version)
    with pytest.raises(ReleaseError, match=wrong):
        publish(releases, version)
    assert releases.client().versions() == {"1.0"}


def test_another_platform_of_a_version_comes_later(releases: Releases) -> None:
    shutil.rmtree(releases.dist)
    releases.package("1.0", platform="linux-arm64")
    publish(releases, "1.0")
    assert {about["platform"] for about in releases.client().look().values()} == {PLATFORM, "linux-arm64"}


def test_a_version_that_cannot_read_what_the_one_before_wrote(releases: Releases) -> None:
    releases.package("1.1", journal=0)
    with pytest.raises(ReleaseError, match="steps of the journal"):
        publish(releases, "1.1")


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none(releases: Releases, share: float) -> None:
    with pytest.raises(ReleaseError, match="from 0 to 1"):
        publishing.set_fraction(releases.repository(), releases.ring(), "1.0", share)


def test_withdrawing_what_is_not_there_or_twice(releases: Releases) -> None:
    repository, ring = releases.repository(), releases.ring()
    with pytest.raises(ReleaseError, match=r"not published here \(published: 1\.0\)"):
        publishing.withdraw(repository, ring, "1.9")
    publishing.withdraw(repository, ring, "1.0")
    with pytest.raises(ReleaseError, match="withdrawn already"):
        publishing.withdraw(repository, ring, "1.0")
    with pytest.raises(ReleaseError, match="publish a higher version"):
        publishing.set_fraction(repository, ring, "1.0", 0.5)


# --- files -----------------------------------------------------------------------------------------------


def _cut(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-500])


def _renamed(archive: Path) -> None:
    archive.rename(archive.with_name(archives.archive_name("1.2", PLATFORM)))


@pytest.mark.parametrize(
    ("spoil", "version", "wrong"),
    [(_cut, "1.1", "damaged or half copied"), (_renamed, "1.2", "does not hold ostler-1.2/")],
)
def test_a_package_that_is_not_whole(
    releases: Releases, spoil: Callable[[Path], None], version: str, wrong: str
) -> None:
    spoil(releases.package("1.1"))
    with pytest.raises(ReleaseError, match=wrong):
        publish(releases, version)
    assert releases.client().versions() == {"1.0"}


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda directory: (directory / "more").write_text("more"), "does not name"),
        (lambda directory: (directory / "ostlerd").unlink(), "lacks files"),
        (lambda directory: (directory / "ostlerd").write_bytes(b"x"), "is not what the manifest says"),
        (lambda directory: (directory / "manifest.json").unlink(), "not finished"),
        (lambda directory: (directory / "payload.json").write_text("{}"), "payload.json is not what"),
    ],
    ids=["surplus", "missing", "changed", "unfinished", "nameless"],
)
def test_a_payload_that_is_not_what_it_says(
    tmp_path: Path, spoil: Callable[[Path], object], wrong: str
) -> None:
    directory = payload(tmp_path / "payload", "1.0")
    archives.check(directory)
    spoil(directory)
    with pytest.raises(ReleaseError, match=wrong):
        archives.check(directory)


def test_packing_the_same_payload_gives_the_same_bytes(tmp_path: Path) -> None:
    one = archives.pack(payload(tmp_path / "a", "1.0"), tmp_path / "1").read_bytes()
    os.utime(tmp_path / "a/ostlerd", (1, 1))
    assert archives.pack(payload(tmp_path / "b", "1.0"), tmp_path / "2").read_bytes() == one


@pytest.mark.parametrize(
    ("gone", "wrong"),
    [
        ("metadata/1.root.json", "root"),
        ("metadata/timestamp.json", "timestamp.json is missing"),
        ("metadata/2.snapshot.json", "half copied"),
        ("metadata/2.targets.json", "half copied"),
        ("metadata", "has no repository"),
        ("targets", "half copied"),
    ],
)
def test_a_repository_that_was_half_copied(releases: Releases, gone: str, wrong: str) -> None:
    releases.package("1.1")
    path = releases.place / "repo" / gone
    if path.is_dir():
        shutil.rmtree(path)
        if gone == "targets":
            path.mkdir()
    else:
        path.unlink()
    with pytest.raises(ReleaseError, match=wrong):
        publish(releases, "1.1")


def test_no_space(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    releases.package("1.1")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 1 << 20))
    with pytest.raises(ReleaseError, match="nothing was written"):
        publish(releases, "1.1")
    assert releases.client().versions() == {"1.0"}


def test_two_at_once(releases: Releases) -> None:
    with (
        releases.repository().locked(),
        pytest.raises(ReleaseError, match="another release tool"),
        releases.repository().locked(),
    ):
        pass


def test_a_clock_that_is_behind(releases: Releases) -> None:
    releases.offset = -dt.timedelta(days=400)
    with pytest.raises(ReleaseError, match="set the clock"):
        upkeep.resign(releases.repository(), releases.ring())
    releases.offset = dt.timedelta()
    assert releases.client().versions() == {"1.0"}


# --- changelog -------------------------------------------------------------------------------------------

GOOD = """# Changelog

## 1.1 (2026-11-21)

Some words.

- **Faster**: `ostler` starts
  in half the time ([why](https://example.org)).
- More.

## 1.0 (2026-10-01)

- First.
"""


def test_notes_are_the_bullets_without_their_marks(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(GOOD)
    (tmp_path / "CHANGELOG.de.md").write_text("## 1.1\n- Schneller.\n")
    (tmp_path / "CHANGELOG.zh.md").write_text("## 1.0\n- 第一版。\n")
    assert changelog.notes(tmp_path, "1.1") == {
        "en": ["Faster: ostler starts in half the time (why).", "More."],
        "de": ["Schneller."],
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("# Changelog\n", "no section for 1.1"),
        ("## 1.1 (unreleased)\n- More.\n", "unreleased"),
        ("## 1.1\n\n## 1.0\n- More.\n", "says nothing"),
        ("## 1.1\n- a\n## 1.1\n- b\n", "2 sections"),
        ("## 1.1\n- " + "x" * 600, "longer than"),
        ("## 1.1\n" + "- x\n" * 50, "sum them up"),
    ],
)
def test_a_changelog_that_says_nothing_to_users(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "CHANGELOG.md").write_text(text)
    with pytest.raises(ReleaseError, match=wrong):
        changelog.notes(tmp_path, "1.1")


def test_a_changelog_that_is_not_committed(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "CHANGELOG.md").write_text(GOOD)
    with pytest.raises(ReleaseError, match="not committed"):
        changelog.notes(tmp_path, "1.1")
    assert changelog.notes(tmp_path, "1.1", allow_dirty=True)["en"]


# --- the command -----------------------------------------------------------------------------------------


class Command:
    """The program, in this process; what it wrote and its exit code."""

    def __init__(self, releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
        self._given = ["--repository", str(releases.place / "repo")]
        self._given += ["--keys", str(releases.offline), "--keys", str(releases.online)]
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*self._given, *arguments])
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err


def test_the_command_from_nothing_to_a_withdrawn_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTLER_RELEASE_PASSPHRASE", PASSPHRASE)
    releases = Releases(tmp_path)
    run = Command(releases, capsys)
    assert run("status") == (
        1,
        f"release: {tmp_path}/repo has no repository (make one: release init)\n",
    )
    offline, online = ("--offline", str(releases.offline)), ("--online", str(releases.online))
    code, said = run("init", *offline, *online, "--targets-keys", "1", "--targets-threshold", "1")
    assert code == 0, said
    releases.package("1.1")
    (tmp_path / "CHANGELOG.md").write_text(GOOD)
    publish = (
        "publish",
        "1.1",
        "--from",
        str(releases.dist),
        "--changelog",
        str(tmp_path),
        "--fraction",
        "0.1",
    )
    code, said = run("--dry-run", *publish)
    assert (code, "would publish ostler-1.1-" in said) == (0, True)
    assert releases.client().versions() == set()
    code, said = run(*publish)
    assert (code, "1.1 is out, offered to 10%" in said) == (0, True), said
    assert run(*publish)[0] == 1
    code, said = run("status")
    assert (code, "1.1  linux-x86_64  10%" in said) == (0, True), said
    assert "root: 2 of 3 sign (root-1, root-2, root-3)" in said
    code, said = run("verify")
    assert (code, "gets 1.1 by the full package" in said) == (0, True), said
    assert run("fraction", "1.1", "2")[0] == 1
    assert run("withdraw", "1.1")[0] == 0
    code, said = run("verify")
    assert (code, "withdrawn: 1.1" in said) == (0, True), said
    code, said = run("resign")
    assert (code, "signed: snapshot, timestamp" in said) == (0, True), said
    monkeypatch.setenv("OSTLER_RELEASE_PASSPHRASE", "wrong word")
    code, said = run("withdraw", "1.1")
    assert (code, said) == (1, "release: 1.1 is withdrawn already\n")
    (releases.place / "repo/targets").chmod(0o755)
    shutil.rmtree(releases.place / "repo/metadata")
    assert run("resign")[0] == 1
