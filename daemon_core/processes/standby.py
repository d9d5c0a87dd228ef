"""A shim's program that has begun and waits to be told its run.

An interpreter takes some ten milliseconds to begin, as long as all the rest of a start together. So one may
be begun as soon as it is known that there will be a run; the name of its spec and open file descriptions are
handed to it over a socket when everything is ready. One that is not wanted ends when its socket closes, so
none outlives whoever has begun it, however that dies. Not on Windows.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ARGUMENT: Final = "--standby"


class Standby:
    """Begins the program for one run; blocks for a millisecond or two, so call it in a thread. Raises
    ``OSError``.

    Everything may be called from any thread. It is used once, or closed.
    """

    def __init__(self, command: Sequence[str], run_dir: Path, environ: Mapping[str, str]) -> None:
        self.run_dir = run_dir
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._process = subprocess.Popen(
                [*command, str(run_dir), ARGUMENT],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=os.sep,
                env=dict(environ),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._link = ours
        self._turn = threading.Lock()
        self._over = False

    def start(self, spec_name: str, descriptors: Sequence[int]) -> bytes | None:
        """Blocking. Gives the shim's first line, empty if it has died; None: it was told nothing."""
        with self._turn:
            if self._over:
                return None
            self._over = True
        try:
            try:
                socket.send_fds(self._link, [f"{spec_name}\n".encode()], descriptors)
            except OSError:
                self._process.kill()
                return None
            assert self._process.stdout is not None
            return self._process.stdout.readline()
        finally:
            self._part()

    def close(self) -> None:
        """Let it go. Does nothing once it was told its run."""
        with self._turn:
            if self._over:
                return
            self._over = True
        self._process.kill()
        self._part()

    def _part(self) -> None:
        self._link.close()
        with contextlib.suppress(OSError):
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process.wait()  # it leaves as soon as its fork goes on, or was killed before that
