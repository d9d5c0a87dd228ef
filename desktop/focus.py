"""The right to come to the front: desktops give it by a token, to whoever was just clicked or started.

Qt takes the token for the next window from the environment of the process. Python's own copy of that is left
alone: what is started from here must not use it up.
"""

from __future__ import annotations

import os

_VARIABLES = ("XDG_ACTIVATION_TOKEN", "DESKTOP_STARTUP_ID")


def token() -> str:
    """What this process was given at its start; to be asked before Qt takes it."""
    return next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")


def allow(given: str) -> None:
    """Let the next window that comes up take the focus."""
    if given:
        for name in _VARIABLES:
            os.putenv(name, given)
