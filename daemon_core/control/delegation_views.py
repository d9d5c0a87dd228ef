"""What is asked about handing on tasks."""

from __future__ import annotations

from daemon_core.control.views import Request


class DelegationAdd(Request, frozen=True, kw_only=True):
    """A task to hand on. Without ``agent`` and ``runtime`` the parent's own kind of agent gets it.

    ``request`` is made by whoever asks: the same one again is the same task. ``directory`` has to be free;
    left out, the task gets a directory of its own, with a work tree of the parent's repository where there is
    one.
    """

    prompt: str
    request: str
    agent: str = ""
    runtime: str = ""
    model: str = ""
    thinking: str = ""
    title: str = ""
    directory: str = ""
