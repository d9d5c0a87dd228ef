"""``ostler diagnostics``: what is in it, and above all what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from daemon_core.cli.diagnostics.redact import REMOVED, Redactor
from daemon_core.cli.diagnostics.timeline import timeline
from daemon_core.settings.directories import resolve

HEX = "0123456789abcdef0123456789abcdef01234567"
SECRETS = {
    "user token": f"mul_{HEX}",
    "task token": f"mat_{HEX}",
    "daemon token": f"mdt_{HEX}",
    "openai": "sk-proj-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "anthropic": "sk-ant-api03-abcDEF123_-xyzXYZ987",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github, fine-grained": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "gitlab": "glpat-abcdefghij0123456789",
    "slack": "xoxb-123456789012-abcdefABCDEF",
    "google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.dGhpcy1pcy1zaWduZWQ",
    "random": "q7Zp3Kx9Vb2Nm5Lt8Rw1Yc4Hd6Gf0JsT",
}
PASSWORD = "hunter2-of-mine"
SHAPES = [
    *((name, f"the answer was {value}.", value) for name, value in SECRETS.items()),
    ("bearer", "Authorization: Bearer abc.def-ghi_123", "abc.def-ghi_123"),
    ("basic", "proxy said Basic dXNlcjpwYXNz== to us", "dXNlcjpwYXNz"),
    ("address", f"git clone https://me:{PASSWORD}@example.org/x.git failed", PASSWORD),
    ("address, token alone", f"https://{PASSWORD}@example.org/x.git", PASSWORD),
    ("query", f"GET /x?access_token={PASSWORD}&page=2", PASSWORD),
    ("variable", f"OPENAI_API_KEY={PASSWORD} codex", PASSWORD),
    ("json", json.dumps({"client_secret": PASSWORD, "page": 2}), PASSWORD),
    ("yaml", f"password: {PASSWORD}", PASSWORD),
    ("option", f"run --api-key {PASSWORD} --fast", PASSWORD),
    ("option =", f"run --token={PASSWORD} --fast", PASSWORD),
    ("pem", f"-----BEGIN RSA PRIVATE KEY-----\n{PASSWORD}\n-----END RSA PRIVATE KEY-----\nafter", PASSWORD),
    ("half a pem", f"-----BEGIN PRIVATE KEY-----\n{PASSWORD}", PASSWORD),
]


@pytest.mark.parametrize(("text", "secret"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_a_secret_is_taken_out_and_what_is_around_it_stays(text: str, secret: str) -> None:
    found = Redactor().text(text)
    assert secret not in found
    assert REMOVED in found
    for word in ("page", "--fast", "example.org/x.git", "after", "the answer was"):
        assert (word in found) == (word in text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21 12:26:19,539 INFO    ostler: Ostler 0.1.0 starts (pid 5195, profile default)",
        "POST /api/daemon/tasks/f318db24-e094-4565-a269-9888922e2abc/complete failed.",
        "signed in at work (https://agents.example.org), the credential is in the keyring",
        '  File "/usr/lib/ostler/daemon_core/hub/routes.py", line 116, in answer',
        "the token of task 5e1c has expired",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_values_by_their_names_and_in_environments() -> None:
    given: dict[str, Any] = {
        "agents.codex.env": {"ANYTHING": "goes", "N": 3},
        "agents.claude.args": ["--api-key", PASSWORD, "--model", "opus"],
        "tools": [{"api_key": PASSWORD, "name": "search"}],
        "token": 12345,
        "limits.runs": 3,
        "on": True,
    }
    assert Redactor(home="/home/me").value(given) == {
        "agents.codex.env": {"ANYTHING": REMOVED, "N": 3},
        "agents.claude.args": ["--api-key", REMOVED, "--model", "opus"],
        "tools": [{"api_key": REMOVED, "name": "search"}],
        "token": REMOVED,
        "limits.runs": 3,
        "on": True,
    }


def test_known_credentials_and_the_home_directory() -> None:
    redact = Redactor(["plain words", "short", ""], "/home/me/")
    assert redact.text("/home/me/x has plain words, short") == f"~/x has {REMOVED}, short"


def test_a_start_after_no_end_is_a_crash() -> None:
    log = [
        "2026-11-21 12:00:00,000 INFO    ostler: Ostler 1.0.0 starts (pid 1, Python 3.11.7, profile default)",
        "2026-11-21 12:00:01,000 INFO    ostler: running: claude",
        "2026-11-21 12:05:00,000 INFO    ostler: Ostler 1.0.0 starts (pid 2, Python 3.11.7, profile default)",
        "no line of ours",
        "2026-11-21 12:06:00,000 ERROR   ostler: port 1 is in use",
        "2026-11-21 12:07:00,000 INFO    ostler: stopped; 1 run goes on without the daemon",
        "2026-11-21 12:08:00,000 INFO    ostler: Ostler 1.0.1 starts (pid 3, Python 3.11.7, profile default)",
    ]
    assert [line[20:28].strip() for line in timeline(log)] == [
        "START",
        "CRASH",
        "START",
        "ERROR",
        "STOP",
        "START",
    ]


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, str]:
    """A home in which every kind of secret lies about, and no daemon."""
    environ = {
        "OSTLER_HOME": str(tmp_path / "o"),
        "HOME": str(tmp_path / "user"),
        "PATH": os.environ["PATH"],
        "MY_SERVICE_PASSWORD": "of the environment",
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
    }
    directories = resolve(environ)
    directories.ensure()
    (tmp_path / "user").mkdir()
    directories.credentials.mkdir(parents=True)
    (directories.credentials / "work.token").write_text("no shape at all\n")
    directories.token_file.write_text("control token here")
    directories.log_dir.mkdir(parents=True, exist_ok=True)
    lines = [
        "2026-11-21 12:00:00,000 INFO    ostler: Ostler 1.0.0 starts (pid 1, Python 3.11.7, profile default)",
        *(f"2026-11-21 12:00:01,000 WARNING daemon_core.x: {text}" for _, text, _ in SHAPES),
        "2026-11-21 12:00:02,000 ERROR   x: no shape at all; control token here; of the environment",
        f"2026-11-21 12:00:03,000 INFO    daemon_core.x: in {tmp_path / 'user'}/src",
    ]
    directories.log_file.write_text("\n".join(lines) + "\n")
    directories.start_error_file.write_text("\n".join(text for _, text, _ in SHAPES))
    directories.config_file.write_text(f'[agents.codex]\npath = "/opt/{SECRETS["user token"]}/codex"\n')
    return environ


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon_core.cli", "diagnostics", *arguments],
        env=environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_archive_holds_no_secret_with_the_daemon_down(planted: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "help.zip"
    done = run(planted, "--output", str(target), "--json", "--progress")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["path"] == str(target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert done.stderr.splitlines()[0] == f"1/{len(told['parts'])} versions.json"
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        files = {
            name.removeprefix("ostler-diagnostics/"): archive.read(name).decode()
            for name in archive.namelist()
        }
    assert set(files) == {"README.txt", *(part["name"] for part in told["parts"])}
    everything = "\n".join(files.values())
    secrets = [*SECRETS.values(), PASSWORD, "no shape at all", "control token here", "of the environment",
               str(tmp_path / "user")]  # fmt: skip
    assert [secret for secret in secrets if secret in everything] == []
    assert "starts (pid 1" in files["timeline.txt"]
    assert "in ~/src" in files["daemon.log"]
    assert json.loads(files["status.json"])["unreachable"] == "absent"
    assert {"name": "python", "ok": True}.items() <= json.loads(files["doctor.json"])[0].items()
    for name, text in files.items():
        if name.endswith(".json"):
            assert isinstance(json.loads(text), dict | list)


def test_a_preview_writes_nothing_and_a_place_that_cannot_be_written_is_said(
    planted: dict[str, str], tmp_path: Path
) -> None:
    done = run(planted, "--preview", "--json")
    assert {part["name"] for part in json.loads(done.stdout)["parts"]} >= {"daemon.log", "records.json"}
    assert list(tmp_path.glob("*.zip")) == []
    done = run(planted, "--output", str(tmp_path / "missing" / "x.zip"))
    assert done.returncode == 1
    assert "--output" in done.stderr


@pytest.mark.parametrize("piece", ["A1a-", "a.", "a", "password_"])
def test_a_word_without_an_end_takes_no_time(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    assert Redactor().text(text)
