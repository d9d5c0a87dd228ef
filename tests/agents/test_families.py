"""Families are known by name before their modules are loaded, and loaded once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daemon_core.agents.families import families

LOADED = """
import sys
import daemon_core.app
from daemon_core.agents.families import families
known = families()
assert "codex-app-server" in known and "nonsense" not in known and len(list(known)) == len(known)
assert "daemon_core.agents.codex" not in sys.modules
assert known["codex-app-server"].name == "codex-app-server"
assert "daemon_core.agents.codex" in sys.modules and "daemon_core.agents.acp" not in sys.modules
"""


def test_each_is_what_it_is_called() -> None:
    known = families()
    assert {name: known[name].name for name in known} == {name: name for name in known}
    assert all(known[name] is known[name] for name in known)


def test_none_is_got_by_another_name() -> None:
    assert families().get("") is None
    with pytest.raises(KeyError):
        families()["nonsense"]


def test_a_module_is_loaded_when_its_family_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
