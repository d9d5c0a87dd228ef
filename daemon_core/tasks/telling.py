"""Notices as an agent reads them: the text of a turn that was begun for them, or that carries them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from daemon_core.jobs.notices import Notice
from daemon_core.protocol.wire import Task
from daemon_core.tasks.plain import cut

TEXT_LIMIT_CHARS: Final = 200_000
"""Many notices at once share this; what is cut can be asked for by the commands that they name."""
LEAST_CHARS: Final = 400

FROM_OSTLER: Final = "This message is from Ostler, not from the user: it tells what has happened meanwhile."
AGAIN: Final = (
    "You may have been told this before; you are told again because your turn was interrupted before you"
    " had answered:"
)
ASKED: Final = "What you are asked now:"


def told(notices: Sequence[Notice]) -> str:
    """What an agent is told of these, as plain text."""
    room = max(LEAST_CHARS, TEXT_LIMIT_CHARS // max(len(notices), 1))
    first = [cut(notice.body.strip(), room) for notice in notices if notice.times == 0]
    again = [cut(notice.body.strip(), room) for notice in notices if notice.times > 0]
    parts = [FROM_OSTLER, *first]
    if again:
        parts += [AGAIN, *again]
    return "\n\n".join(parts)


def prompt_with(prompt: str, notices: Sequence[Notice], claim: Task, *, resumes: bool) -> str:
    """The prompt of a turn with what it carries.

    Args:
        resumes: whether the agent knows what was said before.
    """
    if claim.wake_text is None:
        return f"{told(notices)}\n\n{ASKED}\n\n{prompt}" if notices else prompt
    # Told before, where nothing is left to be told: an earlier attempt at this turn had been taken up.
    said = told(notices) if notices else f"{AGAIN}\n\n{claim.wake_text}"
    alone = resumes or prompt.strip() == claim.wake_text.strip()
    return said if alone else f"{prompt}\n\n{said}"
