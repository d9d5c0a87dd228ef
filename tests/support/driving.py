"""Runs an agent straight from its family's plan, without daemon and shim: the smallest thing that can."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from daemon_core.agents.events import Event, Outcome
from daemon_core.agents.family import EndsExplicitly, Family, HearsFiles, LaunchRequest, Reader
from daemon_core.agents.writes import whole
from daemon_core.tasks import launch

MARK_VARIABLE = "OSTLER_TEST_MARK"
STEP_S = 60.0
"""How long anything a test waits for may take."""
LINGER_S = 3.0
"""How long an agent that is done may stay."""


@dataclass
class Driven:
    """What a run came to."""

    outcome: Outcome
    exit_code: int
    """Negative: ended by that signal."""
    stdout: bytes = b""
    stderr: str = ""
    events: list[Event] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)
    """Command lines of what was left of the run's process tree (killed by now)."""

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def drive(
    family: Family,
    request: LaunchRequest,
    environ: Mapping[str, str],
    on_event: Callable[[Event, Reader, subprocess.Popen[bytes]], None] = lambda event, reader, process: None,
) -> Driven:
    """Start what the family plans, read it to its end and judge it. Leaves no process."""
    plan = family.plan(request)
    for name, data in plan.files.items():
        path = Path(request.run_dir, name)
        path.touch(0o600)
        path.write_bytes(data)
    mark = uuid.uuid4().hex
    process_env = launch.run_environment(dict(environ), plan) | {MARK_VARIABLE: mark}
    reader = family.reader(request)
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            plan.argv,
            cwd=request.work_dir,
            env=process_env,
            stdin=subprocess.DEVNULL if plan.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if plan.merge_stderr else stderr,
            start_new_session=True,
        )
        try:
            driven = _read(process, plan.stdin, reader, Path(request.run_dir), on_event)
            process.wait(STEP_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            survivors = sweep(mark)
        if isinstance(reader, HearsFiles):
            for name in reader.files_at_end:
                if (path := Path(request.run_dir, name)).exists():
                    driven.events += reader.hear_file(name, path.read_bytes())
        driven.events += reader.finish()
        driven.survivors = survivors
        stderr.seek(0)
        driven.stderr = stderr.read().decode("utf-8", "replace")
    code = process.returncode
    driven.exit_code = code
    driven.outcome = reader.outcome(
        code if code >= 0 else None, -code if code < 0 else None, driven.stderr[-8192:]
    )
    return driven


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return once a condition holds. Raises ``TimeoutError``."""
    deadline = time.monotonic() + STEP_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.01)


def sweep(mark: str) -> list[str]:
    """Kill every process that has the mark in its environment; gives their command lines."""
    killed = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK_VARIABLE) == mark:
                killed.append(" ".join(process.cmdline()))
                process.kill()
        except (psutil.Error, OSError):
            continue
    return killed


def _read(
    process: subprocess.Popen[bytes],
    first: bytes | None,
    reader: Reader,
    run_dir: Path,
    on_event: Callable[[Event, Reader, subprocess.Popen[bytes]], None],
) -> Driven:
    driven = Driven(Outcome(success=False), 0)
    output = bytearray()
    assert process.stdout is not None
    if process.stdin is not None:
        assert first is not None
        process.stdin.write(first)
        process.stdin.flush()
    _say(process, reader, run_dir)
    with process.stdout:
        while data := _more(process, reader):
            output += data
            events = reader.feed(data)
            driven.events += events
            for event in events:
                on_event(event, reader, process)
            _say(process, reader, run_dir)
    driven.stdout = bytes(output)
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    return driven


def _say(process: subprocess.Popen[bytes], reader: Reader, run_dir: Path) -> None:
    for write in reader.pending_writes():
        assert process.stdin is not None
        said = whole(write, lambda name: (run_dir / name).read_bytes())
        if said is None:
            process.stdin.close()
        else:
            process.stdin.write(said)
            process.stdin.flush()
        reader.acknowledged(write.number)


def _more(process: subprocess.Popen[bytes], reader: Reader) -> bytes:
    """The next output, empty at its end. An agent that is done and does not go is ended, as in a real run."""
    assert process.stdout is not None
    done = isinstance(reader, EndsExplicitly) and reader.done
    if done and not select.select([process.stdout], [], [], LINGER_S)[0]:
        os.killpg(process.pid, signal.SIGTERM)
    return os.read(process.stdout.fileno(), 1 << 16)
