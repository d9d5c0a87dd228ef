"""The directory of a job: ``state/jobs/<id>/``, 0700, as a run's (it is the shim's), and two files more.

``command.sh`` (or ``.cmd``) is the command as a script. ``spec.job`` holds what is started, with its
environment (0600): a start that a crash has cut off is made good by it. It goes when the process has
begun; from then on the shim has what it needs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon_core.jobs.scripts import Script
from daemon_core.jobs.store import JobRecord
from daemon_core.processes import read_owner, remove_secrets

START_NAME: Final = "spec.job"
OWNER_KIND: Final = "job"


class StartFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is started."""

    argv: tuple[str, ...]
    env: dict[str, str]


class JobFiles:
    """The directories of all jobs. The methods touch the disk: call them in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def of(self, job_id: str) -> Path:
        """The directory of a job."""
        return self.root / job_id

    def prepare(self, job: JobRecord, script: Script, env: dict[str, str]) -> None:
        """Make the directory with the script and what is to be started. Raises ``OSError``."""
        place = self.of(job.id)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = place / script.name
        _write(path, script.content)
        start = StartFile(argv=(*script.program, str(path)), env=env)
        _write(place / START_NAME, msgspec.json.encode(start))

    def start_of(self, job_id: str) -> StartFile | None:
        """What was to be started; None if that is gone or cannot be read."""
        try:
            return msgspec.json.decode((self.of(job_id) / START_NAME).read_bytes(), type=StartFile)
        except (OSError, ValueError):
            return None

    def begun(self, job_id: str) -> None:
        """Its process has begun: what it was started with is not needed here any more."""
        with contextlib.suppress(FileNotFoundError):
            (self.of(job_id) / START_NAME).unlink()

    def settle(self, job_id: str) -> None:
        """It is over: nothing secret stays."""
        place = self.of(job_id)
        if place.exists():
            remove_secrets(place)

    def remove(self, job_id: str) -> None:
        """Take its files away. Raises ``OSError``."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.of(job_id))

    def names(self) -> list[str]:
        """Ids of all jobs that have a directory."""
        try:
            return [entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def used_bytes(self, job_id: str) -> int:
        """What its files take."""
        total = 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.of(job_id)):
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        total += min(found.st_size, getattr(found, "st_blocks", 1 << 53) * 512)
        return total

    def owned(self, job_id: str) -> JobRecord | None:
        """The row of a job as its directory tells it, where the journal has none any more."""
        found = read_owner(self.of(job_id))
        if found.get("kind") != OWNER_KIND or found.get("id") != job_id:
            return None
        known = {field.name for field in msgspec.structs.fields(JobRecord)}
        try:
            return msgspec.convert(
                {name: value for name, value in found.items() if name in known}, type=JobRecord
            )
        except msgspec.ValidationError:
            return None


def owner_of(job: JobRecord) -> dict[str, Any]:
    """Whose it is, for ``owner.json``: enough to take it up without a journal."""
    names = (
        "id", "conversation", "task_key", "run_id", "name", "command", "cwd", "terminal", "time_limit_s",
        "wake", "created_at", "started_at", "mark",
    )  # fmt: skip
    return {"kind": OWNER_KIND, **{name: getattr(job, name) for name in names}}


def _write(path: Path, content: bytes) -> None:
    """A 0600 file that appears whole."""
    new = path.with_name(f"{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    with open(fd, "wb") as file:
        file.write(content)
    os.replace(new, path)
