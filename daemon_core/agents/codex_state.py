"""What a Codex run has come to so far: its state as a snapshot holds it, its usage, its verdict."""

from __future__ import annotations

from typing import Any

import msgspec

from daemon_core.agents import codex_ends
from daemon_core.agents.codex_asking import Asked
from daemon_core.agents.codex_ends import TurnError
from daemon_core.agents.codex_items import count
from daemon_core.agents.ends import exit_text, without_result
from daemon_core.agents.events import Outcome
from daemon_core.agents.lines import cut_output
from daemon_core.agents.rpc import RpcState
from daemon_core.agents.writes import WritesState
from daemon_core.protocol import failures
from daemon_core.protocol.wire import Usage


class Policy(msgspec.Struct, frozen=True):
    """What the program asks for, and where it may write without asking."""

    approval: str = "never"
    sandbox: str = "danger-full-access"


class Stream(msgspec.Struct):
    """A message that is being written: how much of it was told, and what was not yet."""

    told_chars: int = 0
    rest: str = ""


class Counts(msgspec.Struct):
    """Tokens, as the program counts them: ``input`` has what was cached in it."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0


class Result(msgspec.Struct):
    """How the turn ended; ``success`` is the program's own word."""

    success: bool = False
    error: TurnError = msgspec.field(default_factory=TurnError)


class State(msgspec.Struct):
    """What a snapshot holds: all that later events, writes and the outcome depend on.

    Attributes:
        mode: The permission mode.
        told_model: The model in use, as the program tells it.
        stage: ``opening`` (until there is a thread), ``turn``, or ``over``.
        total: The thread's counts when last told; None where they are not known.
        steps: How often it has got on.
        told_error: The last error that is a line of the transcript already.
        resets_at: When a limit of the account that is used up resets, in seconds since 1970.
        asked_again: Whether the thread was asked for a second time.
        refused: Whether the session that was asked for is gone.
        holds: Whether standard input stays open at the end of a turn until somebody decides.
        waiting: Whether somebody is to decide now.
        turns: Turns that the model was seen to work on.
        taken_up: Whether the present one is among them.
        earlier: What the model said at the end of the turns before this one.
    """

    provider: str = "codex"
    work_dir: str = ""
    resume: str = ""
    model: str = ""
    effort: str = ""
    tier: str = ""
    instructions: bool = False
    mode: str = "allow"
    policy: Policy = Policy()
    consumed: int = 0
    skipping: bool = False
    writes: WritesState = msgspec.field(default_factory=WritesState)
    rpc: RpcState = msgspec.field(default_factory=RpcState)
    stage: str = "opening"
    thread_id: str = ""
    turn_id: str = ""
    told_model: str = ""
    progress: bool = False
    steps: int = 0
    calls: dict[str, str] = {}
    streams: dict[str, Stream] = {}
    requests: dict[str, Asked] = {}
    output: str = ""
    output_final: bool = False
    total: Counts | None = None
    used: dict[str, Counts] = {}
    told_error: str = ""
    resets_at: int = 0
    result: Result | None = None
    refused: bool = False
    asked_again: bool = False
    interrupted: bool = False
    holds: bool = False
    waiting: bool = False
    turns: int = 0
    taken_up: bool = False
    earlier: str = ""


def counts_of(found: Any) -> Counts:
    if not isinstance(found, dict):
        return Counts()
    return Counts(
        input=count(found.get("inputTokens")),
        cached=count(found.get("cachedInputTokens")),
        written=count(found.get("cacheWriteInputTokens")),
        output=count(found.get("outputTokens")),
    )


def usage_of(state: State) -> tuple[Usage, ...]:
    """Usage by model. What was cached is told by itself, not as input as well."""
    return tuple(
        Usage(
            provider=state.provider,
            model=model,
            input_tokens=max(0, counts.input - counts.cached - counts.written),
            output_tokens=counts.output,
            cache_read_tokens=counts.cached,
            cache_write_tokens=counts.written,
        )
        for model, counts in state.used.items()
    )


def said(state: State) -> str:
    """What the model said at the end of all turns of the run."""
    return "\n\n".join(part for part in (state.earlier, state.output) if part.strip())


def verdict(state: State, done: bool, exit_code: int | None, signal: int | None, stderr_tail: str) -> Outcome:
    """The verdict: only a completed turn and an undisturbed end (or one after all was said) is a success."""
    result = state.result
    limit = None
    if result is not None and result.success:
        reason = failures.poison_of(state.output) or ""
        if reason:
            error = state.output.strip()
        elif (exit_code == 0 and not signal) or done:
            return Outcome(
                success=True, output=said(state), session_id=state.thread_id, usage=usage_of(state)
            )
        else:
            error = f"the agent said that it was done, but then {exit_text(exit_code, signal)}"
            reason = failures.AGENT_PROCESS
    elif result is not None:
        error = result.error.text
        reason = codex_ends.reason_of(result.error)
        limit = codex_ends.limit_of_error(result.error, state.resets_at)
    else:
        error, reason = without_result(exit_code, signal, codex_ends.last_words(stderr_tail))
        if state.told_error:
            error = f"{error}; before that: {state.told_error}"
    if state.interrupted:
        reason, limit = failures.CANCELLED, None
    return Outcome(
        success=False,
        output=state.output if result is not None and result.success else "",
        error=cut_output(error, codex_ends.ERROR_LIMIT_BYTES),
        reason=reason,
        session_id="" if state.refused else state.thread_id,
        usage=usage_of(state),
        resume_refused=state.refused and not state.progress,
        limit=limit,
    )
