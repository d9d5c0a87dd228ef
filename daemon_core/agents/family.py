"""The contract of a protocol family: how to start an agent, read its stream, talk back, judge its end.

Everything here is free of I/O. A family is handed a ``LaunchRequest`` and says what to start (a
``LaunchPlan``); a ``Reader`` is fed the bytes of the agent's standard output in order and gives events. The
daemon commits, in one journal transaction, the transcript lines made of those events, ``Reader.consumed`` and
``Reader.snapshot()``; after any kind of death a new reader is restored from that snapshot and fed from
``consumed`` on. So a reader must never depend on anything but its snapshot and the bytes from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from daemon_core.agents.events import Event, Outcome, PermissionRequest


class Drive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one provider of a family is driven: the ``[drive]`` table of its registry entry.

    A family has its own arguments in code; what differs between the providers of a family is here.
    """

    args: tuple[str, ...] = ()
    """Arguments right after the program (a subcommand, flags that are always given)."""
    blocked: dict[str, str] = {}
    """Options that nobody else may give, with how many values they take: ``0``, ``1``, ``?`` (may be absent),
    ``*`` (all up to the next option). Added to the family's own."""
    model: str = ""
    """How a model is chosen: an option (``--model``), a word of the family's own, or empty: not at all."""
    thinking: str = ""
    """How a thinking level is chosen, likewise."""
    mcp: str = ""
    """How MCP servers are given; a word that the family knows. Empty: it takes none."""
    resume: str = ""
    """How an earlier session is resumed; an option, or a word that the family knows. Empty: it is not."""
    env: dict[str, str] = {}
    drop_env: tuple[str, ...] = ()
    options: dict[str, str | bool | int | tuple[str, ...]] = {}
    """What only this family understands."""


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one run."""

    provider: str = ""
    """Named in the usage; readers keep it in their snapshot."""
    drive: Drive = Drive()

    executable: str
    """Absolute path of the agent's program (for ``shell``: of the shell)."""
    prompt: str
    work_dir: str
    run_dir: str
    """0700 directory of the run; files of the plan are written there and removed when the run ends."""
    resume_session_id: str = ""
    model: str = ""
    thinking_level: str = ""
    service_tier: str = ""
    """How fast the model's server is to answer, for programs that can ask for it."""
    instructions: str = ""
    """Text that goes to the agent as (appended) system prompt, if the family has such a thing."""
    mcp_servers: dict[str, object] | None = None
    """Content of ``mcpServers``; None means: the agent's own configuration applies."""
    added_mcp_servers: dict[str, object] = {}
    """Ostler's own, in the same form; given beside whatever applies, and left out where the program cannot
    take them so."""
    settings_files: tuple[str, ...] = ()
    """Files of the provider's settings that were laid out in the work directory, as its entry names them."""
    permission_mode: str = "allow"
    """``allow``, ``ask`` (open requests become events and wait for ``Reader.answer``) or ``deny``."""
    extra_args: tuple[str, ...] = ()


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. ``env`` is added to the run's environment, ``drop_env`` names are taken from it."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    json_env: dict[str, dict[str, object]] = {}
    """Variables that hold a JSON object: what is here goes into what the environment has there already, and
    wins."""
    drop_env: tuple[str, ...] = ()
    """Names (or prefixes ending in ``*``) of inherited variables that the agent must not see."""
    files: dict[str, bytes] = {}
    """Files to write into the run directory (0600) first; names are plain file names. Those that begin with
    ``spec.`` may hold secrets and are removed by the shim when the run is over."""
    stdin: bytes | None = None
    """First bytes of standard input, delivered exactly once as write number 1; None: no standard input."""
    merge_stderr: bool = False
    """Whether standard error goes into the same file as standard output."""
    dropped_args: tuple[str, ...] = ()
    """Extra arguments that were left out because they are the family's own; worth a warning."""
    warnings: tuple[str, ...] = ()
    """What was asked for and is not done, in words (a thinking level that the provider does not have)."""


class StdinWrite(msgspec.Struct, frozen=True):
    """Something to say to the agent. Numbers grow by one per run; number 1 is ``LaunchPlan.stdin``.

    ``data`` None closes standard input. The shim acknowledges numbers and never does one twice, so after
    a restart everything not yet acknowledged is simply said again.
    """

    number: int
    data: bytes | None
    files: tuple[str, ...] = ()
    """Files of the plan whose content goes where ``data`` names them (``writes.named``, ``writes.whole``), so
    that neither a prompt nor a secret is ever part of a snapshot."""


@runtime_checkable
class EndsExplicitly(Protocol):
    """A reader that knows when its agent has nothing left to do, for programs that stay although their
    standard input is closed."""

    @property
    def done(self) -> bool:
        """Whether the agent has told its end and been told ours: it may be ended now, and the verdict no
        longer depends on how it ends. Part of the snapshot."""
        ...


@runtime_checkable
class TellsProgress(Protocol):
    """A reader that knows what of its agent's output is progress. The rest (counters, the state of
    connections) may go on in a run that has come to a standstill."""

    @property
    def progressed(self) -> int:
        """How often the agent has got on; only ever grows. Part of the snapshot."""
        ...


@runtime_checkable
class HearsFiles(Protocol):
    """A reader of a program that leaves something worth knowing in files of the run's directory."""

    @property
    def files_at_end(self) -> Sequence[str]:
        """Plain names of the files."""
        ...

    def hear_file(self, name: str, data: bytes) -> Sequence[Event]:
        """The beginning of one of them, once the run is over and before ``finish``; gives the events it
        makes. Not called for a file that is not there."""
        ...


@runtime_checkable
class HearsMore(Protocol):
    """A reader whose agent takes up another message, in the same process, when it has ended its turn.

    Once it was told to hold (before its first snapshot, normally), the successful end of a turn makes it
    wait for ``say_more`` or ``no_more``; without, it lets the agent go at the end of its turn.
    """

    @property
    def turn_over(self) -> bool:
        """Whether it waits for one of the two. Part of the snapshot."""
        ...

    @property
    def turns(self) -> int:
        """How many turns the agent has taken up: for each, it was seen to answer. Part of the snapshot."""
        ...

    def hold(self) -> None:
        """From now on, wait at the end of a turn."""
        ...

    def say_more(self, text: str) -> None:
        """Begin another turn with this; nothing happens unless ``turn_over``."""
        ...

    def no_more(self) -> None:
        """Let the agent go; nothing happens unless ``turn_over``."""
        ...


class Reader(Protocol):
    """Reads one run's standard output. Never raises on any input."""

    @property
    def consumed(self) -> int:
        """Bytes from the start of the output that are fully turned into events; a committed offset."""
        ...

    @property
    def session_id(self) -> str:
        """The provider's session id as far as known, else empty."""
        ...

    @property
    def tools_in_flight(self) -> int:
        """Tool calls that began and have not ended (never below zero)."""
        ...

    @property
    def open_requests(self) -> Sequence[PermissionRequest]:
        """What the agent waits to be answered, oldest first; part of the snapshot."""
        ...

    def answer(self, request_id: str, decision: str, text: str = "") -> Sequence[Event]:
        """Answer an open request: ``allow`` (once), ``allow-task`` (this and what is like it for the rest of
        the task) or ``deny``; ``text`` is the answer to a question, or the reason of a refusal. Gives the
        events it makes; what to say is then in ``pending_writes``. Nothing happens for a request that is
        not open. Called between stretches, never while another thread feeds the reader.
        """
        ...

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take the next bytes, which follow those fed before, and give the events they complete."""
        ...

    def flush(self) -> Sequence[Event]:
        """Events for what is complete enough to show although more may follow (a partial line of text)."""
        ...

    def finish(self) -> Sequence[Event]:
        """The output has ended: events of what is left over. ``consumed`` then covers everything."""
        ...

    def pending_writes(self) -> Sequence[StdinWrite]:
        """What has to be said to the agent and is not known to be acknowledged, in order.

        Never write 1, which is the launch plan's. Commit the snapshot before saying these: a reader that
        is restored from an older one gives the same writes the same numbers only by reading the same bytes
        again.
        """
        ...

    def acknowledged(self, number: int) -> None:
        """All writes up to ``number`` have reached the agent's standard input."""
        ...

    def interrupt(self) -> Sequence[StdinWrite]:
        """What to say to end the turn gently (empty where the protocol has no such thing).

        Everything else that is still unsaid comes first, so the numbers stay in order. Said again, it gives
        the same writes. May be called while another thread feeds the reader.
        """
        ...

    def outcome(self, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
        """Judge the run after ``finish``; ``exit_code`` is None where a signal ended it."""
        ...

    def snapshot(self) -> bytes:
        """The reader's state for the journal: small, no secrets."""
        ...


class Family(Protocol):
    """One protocol family."""

    name: str
    cut_by_time: bool
    """Whether the messages made of an output depend on how it arrived. If not, reading it again from the
    beginning makes the same messages with the same numbers."""

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Say what to start. Raises ``LaunchError`` for what cannot be done."""
        ...

    def reader(self, request: LaunchRequest | None = None, snapshot: bytes | None = None) -> Reader:
        """A reader at the start of the output, or one restored from a snapshot."""
        ...


class LaunchError(Exception):
    """A run cannot be started as asked. ``reason`` is a failure reason of ``protocol.failures``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
