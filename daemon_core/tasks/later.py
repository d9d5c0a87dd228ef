"""What later servers tell of a task beside everything else, in words for its brief and its prompt.

Earlier ones leave all of it out, and then nothing is said. What is in the lists is read piece by piece: a
task must not be lost because a server tells of its statuses in another form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from daemon_core.protocol.wire import Task
from daemon_core.tasks.plain import plain_id, plain_name

LIST_LIMIT: Final = 50
BUILT_IN: Final = ("backlog", "todo", "in_progress", "in_review", "blocked", "done", "cancelled")
"""Statuses that every workspace has; a server names those alone that it has beside them."""


def statuses(task: Task) -> str:
    """Which statuses an issue of this workspace can have, where it has some of its own."""
    lines = []
    for each in _entries(task.issue_statuses):
        key = plain_id(_text(each, "key"))
        if not key or key in BUILT_IN:
            continue
        category = plain_id(_text(each, "category"))
        about = plain_name(_text(each, "description"), 300)
        told = plain_name(_text(each, "name")) or key
        told += f" (counts as {category})" if category and category != key else ""
        lines.append(f"- `{key}`: {told}{f'. {about}' if about else ''}")
    if not lines:
        return ""
    shown = lines[:LIST_LIMIT]
    omitted = task.issue_statuses_omitted
    left_out = len(lines) - len(shown) + (omitted if isinstance(omitted, int) else 0)
    if left_out > 0:
        shown.append(f"- and {left_out} more, which are not listed here")
    return (
        f"This workspace has statuses of its own beside {', '.join(BUILT_IN)}. Where one of them says better"
        " what is meant, set it by its key:\n\n" + "\n".join(shown)
    )


def siblings(task: Task) -> str:
    """Which other issues the same agent works on at this moment, in runs that know nothing of this one."""
    if not task.issue_id:
        return ""
    lines = []
    for each in _entries(task.active_sibling_runs):
        issue = plain_id(_text(each, "issue_identifier")) or plain_id(_text(each, "issue_id"))
        if not issue or _text(each, "task_id") == task.id or _text(each, "issue_id") == task.issue_id:
            continue
        title = plain_name(_text(each, "issue_title"), 120)
        since = plain_id(_text(each, "started_at"))
        lines.append(f"- {issue}{f' ({title})' if title else ''}{f', since {since}' if since else ''}")
    if not lines:
        return ""
    return (
        "You work on other issues at the same time, in runs that do not know of this one, nor this one of"
        " them. Leave what they are about to them:\n\n" + "\n".join(lines[:LIST_LIMIT])
    )


def lost_session(task: Task) -> str:
    """That the agent was at this before and cannot remember it."""
    if not task.prior_session_resume_unavailable or task.prior_session_id:
        return ""
    where = "read the issue and its comments" if task.issue_id else "look up what was said"
    if task.chat_session_id:
        where = "look up what was said with `ostler chat history`"
    return (
        "You have worked on this before, but that session cannot be gone on with: you remember nothing of it."
        f" Do not guess what you said or did then; {where} before you answer."
    )


def surface(task: Task) -> str:
    """Who reads a chat that is a channel elsewhere, and what can be sent there."""
    if not task.chat_channel_type:
        return ""
    told = ""
    if task.chat_type == "group":
        told = "Several people read it: write nothing there that is meant for one of them alone. "
    elif task.chat_type == "p2p":
        told = "One person alone reads it. "
    if task.chat_channel_delivers_files:
        return (
            told + "A file that you have made reaches it when you upload it with `ostler attachment upload"
            " FILE`; it comes after your answer, which has to read well without it."
        )
    return told + "Your answer arrives as text: a file that you have made does not, so say what is in it."


def introduction(task: Task) -> str:
    """What is wanted where an agent begins a chat by itself."""
    if not task.chat_intro or (task.chat_message or "").strip():
        return ""
    return (
        "Nobody has written yet: begin the chat. Say in a few sentences who you are and what you can be"
        " asked for, and do nothing else."
    )


def unwanted_skills(task: Task, provider: str = "") -> list[str]:
    """Skills of this machine that whoever has set up the agent does not want it to use, by their keys."""
    agent = task.agent
    found: dict[str, None] = {}
    for each in _entries(agent.disabled_runtime_skills if agent is not None else None):
        of = _text(each, "provider")
        key = _text(each, "key") or _text(each, "name")
        if key and (not of or not provider or of == provider):
            found.setdefault(key)
    return list(found)


def without_skills(task: Task) -> str:
    """The same in words."""
    names = [name for key in unwanted_skills(task) if (name := plain_name(key))]
    if not names:
        return ""
    shown = ", ".join(names[:LIST_LIMIT])
    return f"Skills of this machine that are not for you, whoever names them: {shown}."


def _entries(told: Any) -> Iterator[dict[str, Any]]:
    if isinstance(told, list):
        yield from (each for each in told if isinstance(each, dict))


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
