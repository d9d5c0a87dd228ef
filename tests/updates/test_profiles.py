"""What keeps a profile's daemon from starting, whatever the version, is held against none."""

from __future__ import annotations

from pathlib import Path

from daemon_core.changeover import Given, broken_at_once
from daemon_core.settings.directories import resolve
from daemon_core.updates.launcher import choose_for_daemon
from daemon_core.updates.versions import Store
from tests.updates.payloads import write_payload

OLD, NEW = "1.0", "1.1"
MISTAKE = "config.toml: daemon.slots is no number"


def test_settings_that_no_version_can_read_are_nothing_against_the_newer_one(tmp_path: Path) -> None:
    environ = {"OSTLER_HOME": str(tmp_path / "o")}
    directories = resolve(environ, "work")
    store = Store(directories.app, str(write_payload(tmp_path / "seed", OLD, small=True)))
    assert choose_for_daemon(store, "work", environ).version == OLD
    write_payload(Path(store.versions_dir) / NEW, NEW, small=True)
    store.change(lambda pointer: pointer._replace(version=NEW, previous=OLD))

    def failing(said: str) -> str:
        chosen = choose_for_daemon(store, "work", environ)
        broken_at_once(directories, Given(chosen.trial.id if chosen.trial is not None else ""), said)
        return chosen.version

    assert [failing(MISTAKE), failing(MISTAKE)] == [NEW, OLD], "the one before cannot read them either"
    assert store.pointer().own["work"].bad == {}
    assert failing(MISTAKE) == NEW, "so it has its chance when they are mended"
    assert failing("another") == OLD
    assert failing("another") == OLD, "what is against it stays"
