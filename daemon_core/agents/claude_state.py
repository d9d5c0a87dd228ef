"""What a run of Claude Code has come to so far, as a snapshot holds it."""

from __future__ import annotations

import msgspec

from daemon_core.agents.claude_live import Live
from daemon_core.agents.claude_requests import Asked
from daemon_core.agents.family import StdinWrite
from daemon_core.protocol.wire import Usage


class Result(msgspec.Struct, gc=False):
    """The newest terminal line."""

    success: bool = False
    subtype: str = ""
    text: str = ""
    error: str = ""
    status: int = 0
    terminal: str = ""
    session_id: str = ""


class State(msgspec.Struct):
    """What a snapshot holds: all that later events and the outcome depend on.

    Attributes:
        provider: The provider named in the usage.
        resume: The session that was asked for.
        deny: Whether requests for permission are refused.
        ask: Whether they wait for the user.
        asked: Those that wait, oldest first.
        allowed: Tools that the user has allowed for the rest of the task.
        calls: Tool calls that wait for their result: id → name.
        progress: Whether the model has said or done anything.
        turn_open: Whether a turn goes on; False only between a result and whatever the model says next.
        next_number: Number of the next write to standard input; 1 is the launch plan's.
        closed: Whether the last write of all has been made.
        holds: Whether standard input stays open at the end of a turn until somebody decides.
        waiting: Whether somebody is to decide now.
        turns: Turns that the model was seen to answer.
        taken_up: Whether the present one is among them.
        earlier: What the model said at the end of the turns before the newest result.
        live: What is shown of the run while it goes on.
        resets_at: When the account's limit resets, where the program has said that it is reached.
    """

    provider: str = "claude"
    consumed: int = 0
    skipping: bool = False
    resume: str = ""
    deny: bool = False
    ask: bool = False
    asked: list[Asked] = []
    allowed: list[str] = []
    session_id: str = ""
    model: str = ""
    calls: dict[str, str] = {}
    progress: bool = False
    turn_open: bool = True
    result: Result | None = None
    usage: tuple[Usage, ...] = ()
    next_number: int = 2
    pending: list[StdinWrite] = []
    closed: bool = False
    holds: bool = False
    waiting: bool = False
    turns: int = 0
    taken_up: bool = False
    earlier: str = ""
    interrupted: bool = False
    live: Live = msgspec.field(default_factory=Live)
    resets_at: int = 0
