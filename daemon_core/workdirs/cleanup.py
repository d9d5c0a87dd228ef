"""Which of the directories that Ostler made for tasks may go, and when.

The rules are in ``judge``, which knows neither disk nor server; what a server says
about the thing a directory belongs to comes in as an ``Answer``:

| what it belongs to | rule |
|---|---|
| nothing that can be told | goes when nothing in it was touched for 72 h |
| an issue | done or cancelled, and not updated for 24 h: goes. Else 12 h after the run: its artefacts |
| a conversation | deleted: goes. Archived for 24 h: goes. Else stays |
| a run of an autopilot, a quick-created task | over: goes |
| what the server does not know (any more) | as nothing that can be told, except for a conversation |
| any other answer, or none | stays |

A directory in use is never judged. Where the task worked in a directory of the user, what Ostler has beside
it loses artefacts at most.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon_core.workdirs.directories import Stamp

STAMP_NAME: Final = ".gc_meta.json"
ORPHAN_S: Final = 72 * 3600.0
ISSUE_DONE_S: Final = 24 * 3600.0
ISSUE_ARTIFACTS_S: Final = 12 * 3600.0
CHAT_ARCHIVED_S: Final = 24 * 3600.0
DEFAULT_ARTIFACTS: Final = ("node_modules", ".next", ".turbo")

Subject = Literal["issues", "chat-sessions", "autopilot-runs", "tasks"]
"""What a server is asked about, as its routes call it."""
Action = Literal["keep", "artifacts", "delete"]

_TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
_RUN_OVER: Final = frozenset({"completed", "failed", "skipped", "issue_created"})


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One directory that Ostler made: ``path`` with ``workdir`` in it. ``touched`` in seconds since 1970."""

    path: Path
    stamp: Stamp | None
    touched: float

    @property
    def work_dir(self) -> Path:
        return self.path / "workdir"

    @property
    def ended(self) -> float:
        """When the last task in it ended, as far as that is known."""
        if self.stamp is not None and (moment := parse_time(self.stamp.completed_at)) is not None:
            return moment
        return self.touched


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server says. ``found`` False: it does not know it, or not to us. ``at``: updated or ended."""

    found: bool
    deleted: bool = True
    """Of what is not found: whether the server said in words that there is no such thing. A bare 404 can also
    mean that we have no access at the moment, and must not cost anybody a conversation's work."""
    status: str = ""
    at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to happen with a directory. ``due``: when it goes if nothing changes; None: not by itself.

    Reasons: ``in_use``, ``local_directory``, ``orphan``, ``issue_open``, ``issue_done``, ``conversation``,
    ``conversation_gone``, ``archived``, ``run_open``, ``run_over``, ``not_known`` (the server does not have
    it), ``no_answer``, ``over_budget``.
    """

    action: Action
    reason: str
    due: float | None = None


def scan(root: Path) -> Iterator[Environment]:
    """All directories that Ostler made for tasks; links and names that begin with a dot are passed over."""
    for workspace in _directories(root):
        for entry in _directories(Path(workspace.path)):
            path = Path(entry.path)
            yield Environment(path=path, stamp=read_stamp(path), touched=_touched(entry, path))


def read_stamp(path: Path) -> Stamp | None:
    """The metadata; None where there is none or it makes no sense."""
    try:
        with open(path / STAMP_NAME, "rb") as stream:
            return msgspec.json.decode(stream.read(65536), type=Stamp)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write the metadata in one step. Raises ``OSError``."""
    temporary = path / f"{STAMP_NAME}.tmp"
    temporary.write_bytes(msgspec.json.encode(stamp))
    os.replace(temporary, path / STAMP_NAME)


def subject_of(stamp: Stamp) -> tuple[Subject, str] | None:
    """What to ask a server about; None if the metadata does not say."""
    if stamp.kind == "chat" or (stamp.chat_session_id and not stamp.kind):
        return ("chat-sessions", stamp.chat_session_id) if stamp.chat_session_id else None
    if stamp.kind in ("autopilot_run", "autopilot") and stamp.autopilot_run_id:
        return "autopilot-runs", stamp.autopilot_run_id
    if stamp.kind == "quick_create":
        return ("tasks", stamp.task_id) if stamp.task_id else None
    if stamp.issue_id:
        return "issues", stamp.issue_id
    if stamp.autopilot_run_id:
        return "autopilot-runs", stamp.autopilot_run_id
    # A task of its own, of a kind that has no thing behind it: over is over.
    return ("tasks", stamp.task_id) if stamp.kind and stamp.task_id else None


def judge(environment: Environment, answer: Answer | None, now: float) -> Verdict:
    """Apply the rules to one directory that is not in use.

    Args:
        answer: What the server said about ``subject_of``; None: it was not asked, or did not answer.
    """
    stamp = environment.stamp
    if stamp is None or (subject := subject_of(stamp)) is None:
        return _spared(stamp, _orphan(environment, "orphan", now))
    if answer is None:
        return Verdict(action="keep", reason="no_answer")
    if not answer.found:
        if subject[0] == "chat-sessions" and answer.deleted:
            return _spared(stamp, Verdict(action="delete", reason="conversation_gone", due=now))
        return _spared(stamp, _orphan(environment, "not_known", now))
    return _spared(stamp, _known(environment, subject[0], answer, now))


def _known(environment: Environment, subject: Subject, answer: Answer, now: float) -> Verdict:
    if subject == "chat-sessions":
        if answer.status == "archived" and answer.at is not None:
            return _after(answer.at + CHAT_ARCHIVED_S, "archived", now)
        return Verdict(action="keep", reason="conversation")
    if subject == "autopilot-runs":
        over = answer.status in _RUN_OVER
        return Verdict(action="delete", reason="run_over", due=now) if over else _stays("run_open")
    if subject == "tasks":
        over = answer.status in _TERMINAL
        return Verdict(action="delete", reason="run_over", due=now) if over else _stays("run_open")
    if answer.status in ("done", "cancelled") and answer.at is not None:
        verdict = _after(answer.at + ISSUE_DONE_S, "issue_done", now)
        if verdict.action == "delete":
            return verdict
        return Verdict(action=_artifacts(environment, now), reason="issue_done", due=verdict.due)
    return Verdict(action=_artifacts(environment, now), reason="issue_open")


def _artifacts(environment: Environment, now: float) -> Action:
    return "artifacts" if now - environment.ended > ISSUE_ARTIFACTS_S else "keep"


def _stays(reason: str) -> Verdict:
    return Verdict(action="keep", reason=reason)


def _after(due: float, reason: str, now: float) -> Verdict:
    return Verdict(action="delete" if now > due else "keep", reason=reason, due=due)


def _orphan(environment: Environment, reason: str, now: float) -> Verdict:
    return _after(environment.touched + ORPHAN_S, reason, now)


def _spared(stamp: Stamp | None, verdict: Verdict) -> Verdict:
    """The rule for a task that worked in a directory of the user."""
    if stamp is None or not stamp.local_directory or verdict.action == "keep":
        return verdict
    if verdict.reason in ("orphan", "not_known"):
        return _stays("local_directory")
    return Verdict(action="artifacts", reason="local_directory")


def over_budget(
    candidates: list[tuple[Environment, int]], used_bytes: int, budget_bytes: int
) -> list[tuple[Environment, int]]:
    """Which of the directories not in use have to go, the one that ended first before all others.

    Args:
        candidates: With the room that each takes; none of them belongs to a directory of the user.
        used_bytes: Room that all directories take, those in use included.
        budget_bytes: 0: there is no budget.
    """
    chosen: list[tuple[Environment, int]] = []
    if not budget_bytes:
        return chosen
    for environment, size in sorted(candidates, key=lambda item: item[0].ended):
        if used_bytes <= budget_bytes:
            break
        chosen.append((environment, size))
        used_bytes -= size
    return chosen


def parse_time(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None for the protocol's unset time and for nonsense."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.year <= 1:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _directories(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def _touched(entry: os.DirEntry[str], path: Path) -> float:
    newest = 0.0
    try:
        newest = entry.stat(follow_symlinks=False).st_mtime
        newest = max(newest, os.lstat(path / "workdir").st_mtime)
    except OSError:
        pass
    return newest
