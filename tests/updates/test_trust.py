"""What is believed of an update server: attacks on real signed metadata, over a real server."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from securesystemslib.signer import CryptoSigner

from daemon_core.updates import update_child
from daemon_core.updates.offers import ProblemError
from daemon_core.updates.trust import Source, Trust
from tests.updates.mirror import PLATFORM, Drip, Endless, Mirror, SignedRepository, Status, made_payload

NAME = f"ostler-1.1.0-{PLATFORM}.tar.xz"


@pytest.fixture
def repo(tmp_path: Path) -> SignedRepository:
    repo = SignedRepository(tmp_path / "repo")
    repo.add("1.1.0", made_payload(tmp_path / "payload", "1.1.0"))
    repo.publish()
    return repo


@pytest.fixture
async def mirror(repo: SignedRepository) -> AsyncIterator[Mirror]:
    async with Mirror(repo.directory) as mirror:
        yield mirror


class Asker:
    """Asks as the child does, in a thread of this process: the metadata is kept from question to question."""

    def __init__(self, repo: SignedRepository, mirror: Mirror, place: Path) -> None:
        self.question: dict[str, Any] = {
            "metadata_dir": str(place / "metadata"),
            "metadata_url": f"{mirror.url}/metadata/",
            "root": str(repo.trusted),
            "platform": PLATFORM,
            "installed": "1.0.0",
            "bucket": "d",
            "bad": [],
            "anyway": False,
            "timeout_s": 1,
        }

    async def ask(self, **changes: Any) -> dict[str, Any]:
        return await asyncio.to_thread(update_child._answer, {**self.question, **changes})

    async def code(self, **changes: Any) -> str:
        return str((await self.ask(**changes))["code"])

    async def version(self, **changes: Any) -> str:
        answer = await self.ask(**changes)
        assert answer["code"] == "ok", answer
        return str((answer["checked"].get("offer") or {}).get("version", ""))


@pytest.fixture
def asker(repo: SignedRepository, mirror: Mirror, tmp_path: Path) -> Asker:
    return Asker(repo, mirror, tmp_path)


def source_of(repo: SignedRepository, mirror: Mirror, place: Path) -> Source:
    return Source(
        metadata_url=f"{mirror.url}/metadata/",
        targets_url=f"{mirror.url}/targets/",
        root=repo.trusted,
        metadata_dir=place / "metadata",
    )


async def test_a_process_that_ends_tells_what_there_is(
    repo: SignedRepository, mirror: Mirror, tmp_path: Path
) -> None:
    checked = await Trust(dict(os.environ)).check(
        source_of(repo, mirror, tmp_path),
        platform=PLATFORM,
        current="1.0.0",
        bucket="d",
        bad=[],
        anyway=False,
    )
    assert checked.offer is not None
    assert checked.offer.version == "1.1.0"
    assert checked.offer.notes["de"] == ["Was neu ist in 1.1.0"]
    target = repo.targets.targets[NAME]
    assert checked.offer.full.length == target.length
    assert (repo.targets_dir / checked.offer.full.url_path).stat().st_size == target.length


async def test_a_server_that_drips_is_left(repo: SignedRepository, mirror: Mirror, tmp_path: Path) -> None:
    mirror.always("timestamp", Drip())
    trust = Trust(dict(os.environ), limit_s=1.0)
    with pytest.raises(ProblemError) as caught:
        await trust.check(
            source_of(repo, mirror, tmp_path),
            platform=PLATFORM, current="1.0.0", bucket="d", bad=[], anyway=False,
        )  # fmt: skip
    assert caught.value.code == "slow"


async def test_an_older_timestamp_is_refused(asker: Asker, repo: SignedRepository) -> None:
    old = (repo.metadata_dir / "timestamp.json").read_bytes()
    repo.publish()
    assert await asker.version() == "1.1.0"
    (repo.metadata_dir / "timestamp.json").write_bytes(old)
    assert await asker.code() == "old_metadata"


async def test_a_stolen_timestamp_key_brings_no_old_snapshot(asker: Asker, repo: SignedRepository) -> None:
    repo.publish()
    assert await asker.version() == "1.1.0"
    repo.timestamp.version += 1
    repo.timestamp.snapshot_meta.version -= 1
    repo.write("timestamp", repo.timestamp, repo.metadata_dir / "timestamp.json")
    assert await asker.code() == "old_metadata"


async def test_expired_metadata_blocks(asker: Asker, repo: SignedRepository) -> None:
    repo.expire("timestamp")
    answer = await asker.ask()
    assert answer["code"] == "expired"
    repo.expire("timestamp", days=1)
    assert await asker.version() == "1.1.0"
    repo.expire("root")
    assert await asker.code() == "expired"


async def test_a_wrong_clock_is_told_from_old_metadata(
    asker: Asker, repo: SignedRepository, mirror: Mirror
) -> None:
    """To a clock that is years ahead everything has expired; the server's clock says what is wrong."""
    repo.expire("timestamp")
    mirror.headers["Date"] = (dt.datetime.now(dt.UTC) - dt.timedelta(days=900)).strftime(
        "%a, %d %b %Y %H:%M:%S GMT"
    )
    answer = await asker.ask()
    assert answer["code"] == "clock"
    assert answer["params"]["there"] < answer["params"]["here"]


async def test_a_certificate_that_is_not_of_today_is_the_clocks_matter(
    repo: SignedRepository, tmp_path: Path
) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=900)
    tls, certificate = own_certificate(tmp_path, later)
    async with Mirror(repo.directory, tls) as mirror:
        with pytest.raises(ProblemError) as caught:
            await Trust({**os.environ, "SSL_CERT_FILE": str(certificate)}).check(
                source_of(repo, mirror, tmp_path),
                platform=PLATFORM, current="1.0.0", bucket="d", bad=[], anyway=False,
            )  # fmt: skip
    assert caught.value.code == "clock"


def own_certificate(place: Path, valid_from: dt.datetime) -> tuple[ssl.SSLContext, Path]:
    """For 127.0.0.1, signed by itself, valid for a day from then on."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(valid_from)
        .not_valid_after(valid_from + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    file = place / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    return tls, file


async def test_changed_and_wrongly_signed_targets_are_refused(asker: Asker, repo: SignedRepository) -> None:
    file = repo.metadata_dir / f"{repo.targets.version}.targets.json"
    right = file.read_bytes()
    file.write_bytes(right.replace(b"1.1.0", b"9.9.9"))
    assert await asker.code() == "untrusted"
    repo.write("targets", repo.targets, file, signers=[CryptoSigner.generate_ed25519()])
    assert await asker.code() == "untrusted"
    file.write_bytes(right[: len(right) // 2])
    assert await asker.code() == "untrusted"
    file.write_bytes(right)
    assert await asker.version() == "1.1.0"


async def test_a_targets_file_under_a_newer_number_is_refused(asker: Asker, repo: SignedRepository) -> None:
    old = (repo.metadata_dir / f"{repo.targets.version}.targets.json").read_bytes()
    repo.publish()
    (repo.metadata_dir / f"{repo.targets.version}.targets.json").write_bytes(old)
    assert await asker.code() == "old_metadata"


async def test_a_newer_snapshot_brings_no_older_targets_and_leaves_none_out(
    asker: Asker, repo: SignedRepository
) -> None:
    repo.publish()
    assert await asker.version() == "1.1.0"
    for spoil in ("older", "none"):
        if spoil == "older":
            repo.snapshot.meta["targets.json"].version -= 1
        else:
            del repo.snapshot.meta["targets.json"]
        repo.snapshot.version += 1
        repo.timestamp.version += 1
        repo.timestamp.snapshot_meta.version += 1
        repo.write("snapshot", repo.snapshot, repo.metadata_dir / f"{repo.snapshot.version}.snapshot.json")
        repo.write("timestamp", repo.timestamp, repo.metadata_dir / "timestamp.json")
        assert await asker.code() in ("old_metadata", "untrusted"), spoil


async def test_one_role_is_not_taken_for_another(asker: Asker, repo: SignedRepository) -> None:
    """Files under each other's names, each rightly signed."""
    place = repo.metadata_dir
    right = (place / "timestamp.json").read_bytes()
    for other in (f"{repo.snapshot.version}.snapshot.json", f"{repo.targets.version}.targets.json"):
        (place / "timestamp.json").write_bytes((place / other).read_bytes())
        assert await asker.code() == "untrusted"
    (place / "timestamp.json").write_bytes(right)
    assert await asker.version() == "1.1.0"


async def test_numbers_that_a_thief_has_driven_up_are_forgotten_with_his_key(
    asker: Asker, repo: SignedRepository
) -> None:
    """A fast-forward attack: it would keep everything that comes later from being new enough."""
    own = repo.timestamp.version, repo.snapshot.version
    repo.timestamp.version = repo.snapshot.version = 2**31
    repo.publish()
    assert await asker.version() == "1.1.0"
    repo.timestamp.version, repo.snapshot.version = own
    repo.publish()
    assert await asker.code() == "old_metadata"
    repo.root.version += 1
    for role in ("timestamp", "snapshot"):
        new = CryptoSigner.generate_ed25519()
        repo.root.revoke_key(repo.keys[role][0].public_key.keyid, role)
        repo.root.add_key(new.public_key, role)
        repo.keys[role] = [new]
    repo.write("root", repo.root, repo.metadata_dir / "2.root.json")
    repo.publish()
    assert await asker.version() == "1.1.0"


async def test_the_chain_of_roots_has_no_gap_and_does_not_go_back(
    asker: Asker, repo: SignedRepository
) -> None:
    assert await asker.version() == "1.1.0"
    for said in (1, 3):  # in the file that is the second by its name
        repo.root.version = said
        repo.write("root", repo.root, repo.metadata_dir / "2.root.json")
        assert await asker.code() in ("old_metadata", "untrusted")
    strangers = [CryptoSigner.generate_ed25519() for _ in range(2)]
    repo.root.version = 2
    for old, new in zip(repo.keys["root"], strangers, strict=True):
        repo.root.revoke_key(old.public_key.keyid, "root")
        repo.root.add_key(new.public_key, "root")
    repo.write("root", repo.root, repo.metadata_dir / "2.root.json", signers=strangers)
    assert await asker.code() == "untrusted", "new keys vouch for themselves alone"
    repo.write("root", repo.root, repo.metadata_dir / "2.root.json", [*repo.keys["root"], *strangers])
    assert await asker.version() == "1.1.0"


async def test_a_new_root_needs_its_threshold(asker: Asker, repo: SignedRepository) -> None:
    repo.root.version = 2
    repo.write("root", repo.root, repo.metadata_dir / "2.root.json", signers=repo.keys["root"][:1])
    assert await asker.code() == "untrusted"
    new = CryptoSigner.generate_ed25519()
    repo.root.revoke_key(repo.keys["timestamp"][0].public_key.keyid, "timestamp")
    repo.root.add_key(new.public_key, "timestamp")
    repo.write("root", repo.root, repo.metadata_dir / "2.root.json")
    assert await asker.code() == "untrusted"  # the timestamp is still signed with the old key
    repo.keys["timestamp"] = [new]
    repo.publish()
    assert await asker.version() == "1.1.0"


async def test_a_mirror_without_an_end_or_without_answers(asker: Asker, mirror: Mirror) -> None:
    mirror.always("timestamp", Endless())
    assert await asker.code() == "endless"
    mirror.always("timestamp", Status(500))
    answer = await asker.ask()
    assert (answer["code"], answer["params"]["status"]) == ("server_error", 500)
    assert await asker.code(metadata_url="http://127.0.0.1:1/metadata/") == "unreachable"


async def test_without_a_root_nothing_is_trusted(asker: Asker, tmp_path: Path) -> None:
    assert await asker.code(root=str(tmp_path / "none.json")) == "trust_missing"
    (tmp_path / "odd.json").write_text("{}")
    assert await asker.code(root=str(tmp_path / "odd.json")) == "untrusted"


async def test_places_that_cannot_be_written(asker: Asker, tmp_path: Path) -> None:
    assert await asker.code(metadata_dir="/sys/kernel/ostler/metadata") == "no_permission"  # not even by root
    (tmp_path / "file").write_text("")
    assert await asker.code(metadata_dir=str(tmp_path / "file" / "metadata")) == "disk_error"


async def test_what_is_kept_and_damaged_is_fetched_again(asker: Asker) -> None:
    assert await asker.version() == "1.1.0"
    for file in Path(asker.question["metadata_dir"]).glob("*.json"):
        if not file.is_symlink():
            file.write_bytes(b"\0" * 100)
    assert await asker.version() == "1.1.0"


# --- choice -----------------------------------------------------------------------------------------------


async def test_an_older_version_is_never_offered(asker: Asker) -> None:
    assert await asker.version(installed="1.1.0") == ""
    assert await asker.version(installed="1.2.0", anyway=True) == ""
    assert await asker.version(installed="1.1.0rc1") == "1.1.0"


async def test_the_roll_out_goes_by_installation(asker: Asker, repo: SignedRepository) -> None:
    repo.custom("1.1.0")["fraction"] = "0.3"
    repo.publish()
    answers = {f"machine {n}": await asker.ask(bucket=f"machine {n}") for n in range(3)}
    for name, answer in answers.items():
        taken = answer["checked"].get("offer") is not None
        assert taken == (update_child.bucket(name, "1.1.0") < 0.3)
        if not taken:
            assert answer["checked"]["passed_over_why"] == "fraction"
    share = sum(update_child.bucket(f"machine {n}", "1.1.0") < 0.3 for n in range(4000)) / 4000
    assert 0.27 < share < 0.33
    repo.custom("1.1.0")["fraction"] = "0"
    repo.publish()
    assert await asker.version() == ""
    assert await asker.version(anyway=True) == "1.1.0"


async def test_a_withdrawn_version_goes_to_nobody(
    asker: Asker, repo: SignedRepository, tmp_path: Path
) -> None:
    repo.add("1.2.0", made_payload(tmp_path / "newer", "1.2.0"), withdrawn=True)
    repo.publish()
    assert await asker.version(anyway=True) == "1.1.0"
    assert (await asker.ask())["checked"]["withdrawn"] == ["1.2.0"]


async def test_a_version_that_failed_here_is_passed_over(asker: Asker, repo: SignedRepository) -> None:
    checked = (await asker.ask(bad=["1.1.0"]))["checked"]
    assert (checked.get("offer"), checked["passed_over"], checked["passed_over_why"]) == (
        None,
        "1.1.0",
        "bad",
    )
    assert await asker.version(bad=["1.1.0"], anyway=True) == "1.1.0"


def test_names_and_custom_have_to_agree() -> None:
    def target(path: str, **custom: Any) -> dict[str, Any]:
        facts = {"platform": PLATFORM, "kind": "full", "version": "2.0", "fraction": "1", **custom}
        return {"path": path, "url_path": path, "length": 1, "sha256": "0" * 64, "custom": facts}

    right = f"ostler-2.0-{PLATFORM}.tar.xz"
    question = {"platform": PLATFORM, "installed": "1.0", "bad": []}
    for wrong in (
        target("ostler-2.1-" + PLATFORM + ".tar.xz"),
        target("../" + right),
        target(right, platform="windows-x86_64"),
        target(right, version="../2.0"),
        target(right, version=""),
        target(right, fraction="all"),
        target(right, kind="delta"),
        {**target(right), "custom": None},
    ):
        assert "offer" not in update_child.choose([wrong], question), wrong
    delta = target(f"ostler-1.0-to-2.0-{PLATFORM}.delta", kind="delta", **{"from": "1.0"})
    other = target(f"ostler-0.9-to-2.0-{PLATFORM}.delta", kind="delta", **{"from": "0.9"})
    found = update_child.choose([other, delta, target(right)], question)["offer"]
    assert (found["version"], found["delta_from"]) == ("2.0", "1.0")
    assert found["delta"]["path"] == delta["path"]
    notes = {"en": ["a" * 9000, 5], "de": "no list"}
    found = update_child.choose([target(right, notes=notes)], question)["offer"]
    assert found["notes"] == {"en": ["a" * 500, "5"]}


async def test_garbage_from_the_child_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "child.py"
    program.write_text("import sys; sys.stderr.write('no luck\\n'); sys.exit(3)")
    monkeypatch.setattr("daemon_core.updates.trust._command", lambda: [sys.executable, str(program)])
    source = Source("http://x/", "http://x/", tmp_path, tmp_path)
    with pytest.raises(ProblemError) as caught:
        await Trust({}).check(source, platform="p", current="1", bucket="", bad=[], anyway=False)
    assert caught.value.code == "child_failed"
    assert "no luck" in caught.value.problem.params["detail"]
    program.write_text(f"print({json.dumps(json.dumps({'code': 'ok', 'checked': {'offer': 5}}))})")
    with pytest.raises(ProblemError) as caught:
        await Trust({}).check(source, platform="p", current="1", bucket="", bad=[], anyway=False)
    assert caught.value.code == "untrusted"
