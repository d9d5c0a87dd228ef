"""A stand-in for the daemon, as far as the launcher and the guard can see one: it holds the lock, and takes
part in a trial. ``python stand_in.py VERSION BEHAVIOUR LOG [ARGUMENT...]``, where ``BEHAVIOUR@PROFILE`` is
that of one profile's daemon; those of others are good.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO

from daemon_core.updates import pointer as deciding
from daemon_core.updates import profiles
from daemon_core.updates.launcher import profile_of
from daemon_core.updates.versions import Installation, Store, app_directory, lock_file

GRACE_S = 2.0
"""Whoever looks whether the lock is free has it for a moment: the daemon waits a little, too."""


def locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def main(version: str, behaviour: str, log: str, arguments: list[str]) -> int:
    trial_id = os.environ.get("OSTLER_TRIAL", "")
    profile = profile_of(arguments, os.environ)
    behaviour, _, whose = behaviour.partition("@")
    if whose not in ("", profile):
        behaviour = "good"
    path = Path(lock_file(os.environ, profile))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as out:
        out.write(f"{version} {os.getpid()} {'trial' if trial_id else 'plain'}\n")
    if behaviour == "crash":
        return 1
    lock = open(path, "w")  # noqa: SIM115 - for as long as this lives
    deadline = time.monotonic() + GRACE_S
    while not locked(lock):
        if time.monotonic() >= deadline:
            return 6
        time.sleep(0.02)
    installation = Installation.of()
    assert installation is not None
    store = Store(app_directory(os.environ), installation.seed_dir())
    if trial_id:
        trial = profiles.find(store.stored(), trial_id)
        assert trial is not None
        if behaviour == "unhealthy":
            store.of_trial(
                trial_id, lambda pointer: deciding.reverted(pointer, deciding.UNHEALTHY, "no journal")
            )
            return 1
        if behaviour == "stopped":
            store.of_trial(trial_id, deciding.stopped)
            return 0
        if behaviour != "hang":
            if behaviour == "silent":
                store.beat()
            beat_s = 0.05 if behaviour == "silent" else 0.0
            store.of_trial(trial_id, lambda pointer: deciding.healthy(pointer, beat_s))
            if behaviour == "crash_later":
                time.sleep(0.3)
                return 1
            if behaviour not in ("stuck", "silent"):
                time.sleep(trial.settle_s)
                store.of_trial(trial_id, deciding.committed)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
