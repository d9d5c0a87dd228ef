"""What is asked of runtimes and answered, beyond the list of them (which is ``views.RuntimeView``)."""

from __future__ import annotations

from daemon_core.control.views import Request, View


class SetPath(Request, frozen=True, kw_only=True):
    """The program for a custom profile on this machine, absolute; empty: the profile's own command."""

    path: str = ""


class ProfilePath(View, frozen=True, kw_only=True):
    """A custom profile and the program that was set for it on this machine."""

    profile: str
    name: str = ""
    command: str = ""
    """What the profile itself names."""
    path: str = ""
    runtimes: tuple[str, ...] = ()
    """Ids of its runtimes, of this machine."""
    reason: str = ""
    """Why it cannot be used here; empty where it can, or where that is not known yet."""


class MissingAgent(View, frozen=True, kw_only=True):
    """A kind of agent that is not on this machine. ``install``: the command that brings it, where there is a
    short one."""

    provider: str
    name: str = ""
    install: str = ""
    verified: bool = False
    """Whether this kind was tried with Ostler by its makers."""
