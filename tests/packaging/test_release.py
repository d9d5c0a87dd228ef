"""The repository of updates: what its makers do is what clients see, and nothing else."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root

from daemon_core.updates import delta
from releasing import archives, client, publishing, upkeep
from releasing.errors import KeyMissingError, ReleaseError
from releasing.repository import Lifetimes

from .releases import PLATFORM, Releases


@pytest.fixture(scope="module")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    made = Releases(tmp_path_factory.mktemp("release") / "made").init()
    made.publish("1.0")
    made.publish("1.1", fraction=0.25)
    return made


@pytest.fixture
def published(_published: Releases, tmp_path: Path) -> Releases:
    """A repository with 1.0 and, for a quarter, 1.1; each test has its own."""
    return _published.copy(tmp_path / "own")


def test_clients_get_what_was_published_and_the_delta_leads_there(
    published: Releases, tmp_path: Path
) -> None:
    judge = published.client()
    about = judge.look()
    full, by_delta = (archives.archive_name("1.1", PLATFORM), archives.delta_name("1.0", "1.1", PLATFORM))
    assert set(about) == {archives.archive_name("1.0", PLATFORM), full, by_delta}
    assert about[full]["fraction"] == "0.25"
    assert about[full]["notes"] == {"en": ["What is new in 1.1."]}
    assert (about[full]["kind"], about[by_delta]["kind"], about[by_delta]["from"]) == ("full", "delta", "1.0")

    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = archives.opened(judge.fetch(archives.archive_name("1.0", PLATFORM)), tmp_path / "old")
    new = archives.opened(judge.fetch(full), tmp_path / "new")
    delta.apply(
        old.payload,
        judge.fetch(by_delta),
        tmp_path / "made",
        manifest_sha256=about[by_delta]["payload_sha256"],
    )
    assert archives.check(tmp_path / "made") == new.unpacked_bytes == about[full]["unpacked_bytes"]
    assert (tmp_path / "made/ostlerd").read_bytes() == (new.payload / "ostlerd").read_bytes()


def test_the_daemons_own_client_sees_fraction_withdrawal_and_files(published: Releases) -> None:
    """The program that the daemon asks with, over HTTP."""
    root = (published.place / "repo/metadata/1.root.json").read_bytes()
    ring, repository = published.ring(), published.repository()

    with client.served(published.place / "repo") as url:

        def ask(anyway: bool = True) -> client.Seen:
            return client.ask(url, root, platform=PLATFORM, installed="1.0", anyway=anyway, bucket="somebody")

        asked = ask()
        assert (asked.code, asked.version, asked.delta) == ("ok", "1.1", True)
        assert client.missing(asked) == []
        publishing.set_fraction(repository, ring, "1.1", 0.0)
        assert ask(anyway=False).version == ""
        assert ask(anyway=False).passed_over == ("1.1", "fraction")
        assert ask().version == "1.1"
        publishing.set_fraction(repository, ring, "1.1", 1.0)
        assert ask(anyway=False).version == "1.1"
        publishing.withdraw(repository, ring, "1.1")
        assert (ask().version, ask().withdrawn) == ("", ("1.1",))
        published.publish("1.2")
        assert (ask().version, ask().delta) == ("1.2", True)
        publishing.prune(repository, -1)
        assert client.missing(ask()) == []


def test_only_the_newest_versions_are_listed_and_pruning_removes_the_rest(published: Releases) -> None:
    for number in range(2, 8):
        published.publish(f"1.{number}")
    about = published.client().look()
    full = {each["version"] for each in about.values() if each["kind"] == "full"}
    assert full == {"1.3", "1.4", "1.5", "1.6", "1.7"}
    assert {each["version"] for each in about.values() if each["kind"] == "delta"} == {"1.6", "1.7"}
    repository = published.repository()
    assert publishing.prune(repository, 14) == [], "who is in the middle of a download keeps it"
    gone = publishing.prune(repository, -1)
    assert any("ostler-1.0-" in name for name in gone)
    assert "1.targets.json" in gone
    assert not any(name.endswith("root.json") for name in gone)
    judge = published.client()
    for path in judge.look():
        judge.fetch(path)


def test_signing_again_keeps_clients_content_and_tells_when_offline_keys_are_needed(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.offset = -dt.timedelta(days=2, hours=1)
    releases.init()
    releases.publish("1.0")
    judge = releases.client()
    with pytest.raises(ExpiredMetadataError):
        judge.look()
    releases.offset = dt.timedelta()
    repository, online = releases.repository(), releases.ring(releases.online)
    assert {due.role for due in upkeep.dues(repository, repository.state()) if due.soon} == {"timestamp"}
    assert upkeep.resign(repository, online) == (["snapshot", "timestamp"], [])
    assert judge.versions() == {"1.0"}

    releases.offset = dt.timedelta(days=22)
    signed, cannot = upkeep.resign(releases.repository(), online)
    assert signed == ["snapshot", "timestamp"]
    assert len(cannot) == 1
    assert cannot[0].startswith("targets expires")
    assert upkeep.resign(releases.repository(), releases.ring())[0] == ["targets", "snapshot", "timestamp"]
    releases.offset = dt.timedelta(days=330)
    assert upkeep.resign(releases.repository(), releases.ring())[0] == [
        "root",
        "targets",
        "snapshot",
        "timestamp",
    ]
    assert judge.versions() == {"1.0"}


@pytest.mark.parametrize(
    ("role", "key"),
    [("root", "root-1"), ("targets", "targets-2"), ("snapshot", "snapshot-1"), ("timestamp", "timestamp-1")],
)
def test_a_changed_key_is_accepted_by_old_and_new_clients(published: Releases, role: str, key: str) -> None:
    old = published.client("old")
    assert "1.1" in old.versions()
    place = published.offline if role in ("root", "targets") else published.online
    upkeep.rotate_key(published.repository(), published.ring(), role, key, place)
    for path in (*place.glob(f"{key}.*"),):
        path.unlink()
    upkeep.resign(published.repository(), published.ring(), ("targets", "snapshot", "timestamp"))
    published.publish("1.2")
    assert "1.2" in old.versions()
    assert "1.2" in published.client("new").versions()
    newest = (published.place / "repo/metadata/root.json").read_bytes()
    assert "1.2" in published.client("newest", root=newest).versions()


def test_a_lost_online_key_is_replaced_by_those_of_root(published: Releases) -> None:
    judge = published.client()
    judge.look()
    for path in published.online.glob("timestamp-1.*"):
        path.unlink()
    repository, ring = published.repository(), published.ring()
    with pytest.raises(KeyMissingError):
        upkeep.resign(repository, ring)
    lost = repository.state().root.signed.roles["timestamp"].keyids[0]
    assert upkeep.rotate_key(repository, ring, "timestamp", lost[:12], published.online) == "timestamp-1"
    assert "1.1" in judge.versions()
    published.publish("1.2")
    assert "1.2" in judge.versions()


def test_a_root_needs_its_threshold(published: Releases) -> None:
    """One key of root alone, stolen, brings no root in that a client takes."""
    judge = published.client()
    judge.look()
    repository, ring = published.repository(), published.ring()
    metadata: Metadata[Root] = repository.root()
    metadata.signed.version += 1
    metadata.signatures.clear()
    metadata.sign(ring.signer(metadata.signed.roles["root"].keyids[0]), append=True)
    (repository.metadata / "2.root.json").write_bytes(metadata.to_bytes())
    with pytest.raises(UnsignedMetadataError):
        judge.look()


def test_metadata_of_a_mirror_that_was_set_back_is_refused(published: Releases, tmp_path: Path) -> None:
    """Old files served again: the client that saw newer ones takes none of them."""
    judge = published.client()
    before = tmp_path / "before"
    shutil.copytree(published.place / "repo", before)
    published.publish("1.2")
    assert "1.2" in judge.versions()
    shutil.rmtree(published.place / "repo")
    before.rename(published.place / "repo")
    with pytest.raises(RepositoryError):
        judge.look()


def test_lifetimes_are_in_order() -> None:
    for timestamp, snapshot, targets in ((0, 7, 30), (4, 7, 30), (3, 2, 30), (2, 7, 5)):
        with pytest.raises(ReleaseError):
            Lifetimes(timestamp=timestamp, snapshot=snapshot, targets=targets)


def test_everything_that_is_public_can_be_read_and_nothing_secret_is_there(published: Releases) -> None:
    repo = published.place / "repo"
    for path in repo.rglob("*"):
        if path.name != ".release.lock":
            assert path.stat().st_mode & 0o004, path
    text = b"".join(path.read_bytes() for path in repo.rglob("*.json"))
    assert b"PRIVATE" not in text
    for path in (*published.offline.glob("*.pem"), *published.online.glob("*.pem")):
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert json.loads((repo / "metadata/root.json").read_bytes())["signed"]["consistent_snapshot"] is True
