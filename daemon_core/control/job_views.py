"""What is asked about jobs and answered, beside the job itself (``views.JobView``)."""

from __future__ import annotations

from daemon_core.control.views import Request, View


class JobRun(Request, frozen=True, kw_only=True):
    """A job that is wanted."""

    command: str
    """As a shell takes it; it becomes a script of its own."""
    id: str = ""
    """Chosen by whoever asks (32 hexadecimal digits): asking again after a lost answer starts no other."""
    name: str = ""
    directory: str = ""
    """Absolute. Inside a task: its work directory or below; left out: there."""
    fallback: bool = False
    """Inside a task: a directory outside of the work directory means the work directory."""
    time_limit: float | None = None
    """Seconds; 0: none; left out: as the settings say."""
    terminal: bool = True
    wake: bool = True


class JobInput(Request, frozen=True, kw_only=True):
    """Something to say to a job. ``eof``: nothing more follows."""

    text: str = ""
    newline: bool = True
    eof: bool = False


class JobOutput(View, frozen=True, kw_only=True):
    """A stretch of a job's output, byte for byte (base64 in JSON)."""

    id: str
    offset: int
    next_offset: int
    size: int
    """Of the whole output at that moment."""
    ended: bool
    """The job has: the size is final."""
    data: bytes
    dropped_from: int | None = None
    """From here up to ``dropped_to`` nothing can be read any more: the output is longer than is kept. What is
    asked for in between begins at ``dropped_to``."""
    dropped_to: int | None = None


class JobDigest(View, frozen=True, kw_only=True):
    """Beginning and end of a job's output as plain text. ``size``: bytes of all of it, also of what was
    dropped and cannot be read any more (``dropped_from`` up to ``dropped_to``)."""

    id: str
    text: str
    size: int
    shortened: bool
    ended: bool
    dropped_from: int | None = None
    dropped_to: int | None = None
