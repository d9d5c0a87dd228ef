"""The claim of a task on disk: with its token, so 0600 in the run's own 0700 directory, gone when it ends.

``claim.json`` is removed by the shim when the run is over. A run that resumes a session may be refused and
tried afresh, also after a restart: for that ``retry.json`` is kept until the resume has worked or the task
has ended. A task that is kept open for what its jobs come to needs its claim for a further run: it is kept
in ``further.json`` until that has been recorded or the task has ended.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import msgspec

from daemon_core.protocol.wire import Task


def new_run_id() -> str:
    """An id that nothing else has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


class ClaimFile:
    """The claim files of one run directory. All methods touch the disk: call them in a thread."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def write(self, claim: Task) -> None:
        """Make the run directory and keep the claim there. Raises ``OSError``."""
        self.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write("claim.json", msgspec.json.encode(claim))

    def read(self) -> Task | None:
        """The claim, or None if it is gone or cannot be understood."""
        return self._read("claim.json")

    def keep_for_retry(self) -> None:
        """Keep a second copy that outlives the run."""
        with contextlib.suppress(FileNotFoundError):
            self._write("retry.json", (self.run_dir / "claim.json").read_bytes())

    def read_retry(self) -> Task | None:
        """The second copy, or None."""
        return self._read("retry.json")

    def forget_retry(self) -> None:
        """The second copy is not needed any more."""
        (self.run_dir / "retry.json").unlink(missing_ok=True)

    def keep_for_further(self, claim: Task | None = None) -> None:
        """Keep a copy that outlives the run, of this claim or of the one that is there."""
        with contextlib.suppress(FileNotFoundError):
            content = msgspec.json.encode(claim) if claim else (self.run_dir / "claim.json").read_bytes()
            self._write("further.json", content)

    def read_further(self) -> Task | None:
        """That copy, or None."""
        return self._read("further.json")

    def remove(self) -> None:
        """Remove everything secret that is not the shim's to remove."""
        # The .new ones are left by a death in the middle of writing.
        kept = ("claim.json", "retry.json", "further.json")
        names = (*kept, *(f"{name}.new" for name in kept), "spec")
        for path in (*(self.run_dir / name for name in names), *self.run_dir.glob("spec.*")):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _read(self, name: str) -> Task | None:
        try:
            return msgspec.json.decode((self.run_dir / name).read_bytes(), type=Task)
        except (OSError, ValueError):
            return None

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.run_dir / f"{name}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)
        os.replace(temporary, self.run_dir / name)
