"""Short questions to programs (``--version``), all at once, in one thread.

Every program runs in a session of its own, without standard input, with bounded output and bounded time. One
that does not end in time is killed with everything it started.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

import msgspec

OUTPUT_LIMIT_BYTES: Final = 64 * 1024
AT_ONCE_LIMIT: Final = 32
"""Programs that run at the same time; the others wait for their turn."""
DRAIN_S: Final = 0.3
"""How long the rest of the output is waited for once the program has ended: a child of it may hold the
pipe.
"""
_TICK_S: Final = 0.2
"""How soon a cancelled probe notices."""
_POLL_S: Final = 0.02
"""How soon the end of a program is noticed where the kernel does not tell (no pidfd)."""

MARK_VARIABLE: Final = "OSTLER_PROBE"
"""Names the probe in the environment of all it starts, so that none of it can hide in another session."""


class Question(msgspec.Struct, frozen=True):
    """What to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    limit_s: float
    """How long it may take."""
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES
    """More of standard output or of standard error than this, and it is ended."""
    cwd: str = os.sep
    stdin: bytes | None = None
    """What it is told at once (little: it has to fit into a pipe); its standard input then stays open. None:
    it has none."""
    enough: Callable[[bytes], bool] | None = None
    """Asked with every new stretch of whole lines of standard output: whether it need not say more. It is
    ended then, and that is no failure."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``failure`` is empty if the program ended by itself."""

    failure: str = ""
    """``timed_out``, ``too_much_output``, ``not_started`` or ``cancelled``."""
    exit_code: int | None = None
    """Negative: ended by that signal. None unless the program ended by itself (or had said enough)."""
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    """With ``not_started``: what the system said."""
    number: int = 0
    """Its number for that (``errno``)."""


class _Asked:
    """One program that is running."""

    def __init__(self, question: Question, deadline: float) -> None:
        self.mark = uuid.uuid4().hex
        self.deadline = deadline
        self.limit_bytes = question.output_limit_bytes
        self.failure = ""
        self.output: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.process = subprocess.Popen(
            question.argv,
            stdin=subprocess.DEVNULL if question.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**question.env, MARK_VARIABLE: self.mark},
            cwd=question.cwd,
            start_new_session=True,  # means nothing on Windows
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._outputs = [(1, _selectable(self.process.stdout)), (2, _selectable(self.process.stderr))]
        self.pidfd: int | None = None
        if sys.platform == "linux" and hasattr(os, "pidfd_open"):
            try:
                self.pidfd = os.pidfd_open(self.process.pid)
            except OSError:
                pass
        self.open_pipes = 2
        self.enough = question.enough
        self.satisfied = False
        self._looked_at = 0
        if question.stdin is not None and self.process.stdin is not None:
            if sys.platform != "win32":
                os.set_blocking(self.process.stdin.fileno(), False)
            try:
                os.write(self.process.stdin.fileno(), question.stdin)
            except OSError:
                pass  # it has ended already, and its end says why

    def took(self, which: int, data: bytes) -> None:
        """Some output has come."""
        self.output[which] += data
        if which == 1 and self.enough is not None and b"\n" in data:
            end = self.output[1].rindex(b"\n") + 1
            self.satisfied = self.satisfied or self.enough(bytes(self.output[1][self._looked_at : end]))
            self._looked_at = end

    def streams(self) -> list[tuple[int, IO[bytes] | socket.socket]]:
        return self._outputs

    def answer(self) -> Answer:
        return Answer(
            failure=self.failure,
            exit_code=None if self.failure or self.satisfied else self.process.returncode,
            stdout=self.output[1].decode("utf-8", "replace"),
            stderr=self.output[2].decode("utf-8", "replace"),
        )

    def close(self) -> None:
        for _, stream in self.streams():
            stream.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def ask_all(questions: Sequence[Question], cancelled: threading.Event | None = None) -> list[Answer]:
    """Ask all at once and give their answers in the same order. Blocks: call it in a thread.

    Args:
        questions: What to start.
        cancelled: Set by another thread to end everything soon.
    """
    cancelled = cancelled or threading.Event()
    answers: list[Answer] = [Answer(failure="cancelled") for _ in questions]
    running: dict[int, _Asked] = {}
    waiting = list(enumerate(questions))[::-1]
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                if cancelled.is_set():
                    waiting.clear()
                elif waiting and len(running) < AT_ONCE_LIMIT:
                    number, question = waiting.pop()
                    asked = _start(question)
                    if isinstance(asked, Answer):
                        answers[number] = asked
                        continue
                    running[number] = asked
                    for which, stream in asked.streams():
                        selector.register(stream, selectors.EVENT_READ, (asked, which))
                    if asked.pidfd is not None:
                        selector.register(asked.pidfd, selectors.EVENT_READ, (asked, 0))
                    continue
                if running:
                    _turn(selector, running, answers, cancelled)
        finally:
            for asked in running.values():
                _kill_tree(asked)
                asked.close()
    return answers


def _selectable(stream: IO[bytes]) -> IO[bytes] | socket.socket:
    """Something that a selector can wait for: the stream, set not to block; on Windows a socket."""
    if sys.platform == "win32":
        return _relayed(stream)
    os.set_blocking(stream.fileno(), False)
    return stream


def _relayed(stream: IO[bytes]) -> socket.socket:
    """A socket that says what the stream does. Windows waits for sockets alone; **not yet tried there**."""
    ours, theirs = socket.socketpair()

    def relay() -> None:
        # The stream is this thread's: closing it elsewhere would wait for a read that may take long.
        with stream, theirs:
            try:
                while data := os.read(stream.fileno(), 65536):
                    theirs.sendall(data)
            except OSError:
                pass  # nobody asks any more

    threading.Thread(target=relay, name="output of a probe", daemon=True).start()
    ours.setblocking(False)
    return ours


def _start(question: Question) -> _Asked | Answer:
    try:
        return _Asked(question, time.monotonic() + question.limit_s)
    except (OSError, ValueError) as error:
        return Answer(failure="not_started", error=str(error), number=_number(error))


def _number(error: OSError | ValueError) -> int:
    found = getattr(error, "winerror", None) or getattr(error, "errno", None)
    return found if isinstance(found, int) else 0


def _turn(
    selector: selectors.BaseSelector,
    running: dict[int, _Asked],
    answers: list[Answer],
    cancelled: threading.Event,
) -> None:
    """Wait for something to happen, take it in, and part with what is done."""
    tick_s = _TICK_S if all(asked.pidfd is not None for asked in running.values()) else _POLL_S
    nearest_s = min(asked.deadline for asked in running.values()) - time.monotonic()
    for key, _ in _ready(selector, max(0.0, min(tick_s, nearest_s))):
        asked, which = key.data
        if which == 0:
            selector.unregister(key.fd)
            continue
        source = key.fileobj
        data = source.recv(65536) if isinstance(source, socket.socket) else os.read(key.fd, 65536)
        if data:
            asked.took(which, data)
        else:
            selector.unregister(key.fileobj)
            asked.open_pipes -= 1
    now = time.monotonic()
    for number, asked in list(running.items()):
        ended = asked.process.poll() is not None
        if cancelled.is_set():
            asked.failure = "cancelled"
        elif max(len(asked.output[1]), len(asked.output[2])) > asked.limit_bytes:
            asked.failure = "too_much_output"
        elif asked.satisfied:
            pass
        elif not ended and now >= asked.deadline:
            asked.failure = "timed_out"
        elif not ended or (asked.open_pipes and now < asked.deadline):
            if ended:
                asked.deadline = min(asked.deadline, now + DRAIN_S)
            continue
        del running[number]
        for _, stream in asked.streams():
            if stream in selector.get_map():
                selector.unregister(stream)
        if asked.pidfd is not None and asked.pidfd in selector.get_map():
            selector.unregister(asked.pidfd)
        if asked.failure or asked.satisfied:
            _kill_tree(asked)
        asked.close()
        answers[number] = asked.answer()


def _ready(selector: selectors.BaseSelector, limit_s: float) -> list[tuple[selectors.SelectorKey, int]]:
    if sys.platform == "win32" and not selector.get_map():
        time.sleep(limit_s)  # there waiting for nothing is an error
        return []
    return selector.select(limit_s)


def _kill_tree(asked: _Asked) -> None:
    """End a program and everything it started, also what went into a session of its own."""
    # Needed only when something hangs; not worth its import time otherwise.
    import psutil

    alive = asked.process.poll() is None
    if alive:
        try:
            if sys.platform == "win32":
                asked.process.kill()
            else:
                # Not reaped, so the number is still this process's and the group's.
                os.killpg(asked.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    for found in psutil.process_iter():
        try:
            if found.environ().get(MARK_VARIABLE) == asked.mark:
                found.kill()
        except (psutil.Error, OSError):
            continue
    if alive:
        asked.process.wait()
