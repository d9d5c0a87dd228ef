"""The stored list of servers and the names in it."""

from __future__ import annotations

import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from daemon_core.settings.servers import Loaded, ServerEntry, fit_name, load, name_for, store


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    assert load(path) == Loaded(())
    entries = (
        ServerEntry(name="a.example", url="https://a.example", account="x", place="keyring"),
        ServerEntry(name="b-8080", url="http://b:8080"),
    )
    store(path, entries)
    assert load(path) == Loaded(entries)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_list_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    for content in (b"", b"[]", b"\xff\xfe", b'{"servers": [{"url": "x"}]}'):
        path.write_bytes(content)
        found = load(path)
        assert found.entries == ()
        assert found.damaged is not None
        assert found.damaged.read_bytes() == content
        assert not path.exists()


def test_names_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    good = ServerEntry(name="good", url="https://good")
    store(path, [ServerEntry(name="hub"), ServerEntry(name="a/b"), ServerEntry(name=""), good, good])
    assert load(path).entries == (good,)


def test_a_name_is_the_host_and_what_tells_it_apart() -> None:
    assert name_for("https://api.example.org", []) == "api.example.org"
    assert name_for("http://127.0.0.1:8080", []) == "127.0.0.1-8080"
    assert name_for("http://[::1]:8080/base", []) == "1-8080"
    assert name_for("https://api.example.org/two", ["api.example.org"]) == "api.example.org-2"
    assert name_for("https://hub", []) == "hub-2"


@given(st.text(max_size=200))
def test_a_name_fits_everywhere(text: str) -> None:
    name = fit_name(text)
    assert fit_name(name) == name
    assert len(name) <= 64
    assert "/" not in name
    assert not name.startswith(".")
