"""Whether somebody is signed in to an agent, as far as that can be seen without asking anybody.

Nothing is started and no network is used: variables and files say it, or nobody does. A keychain may have
what no file shows, and a settings file may name a helper that gives a key, so "no" is said only where the
provider's entry says that it is certain.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Literal

from daemon_core.runtimes.providers import Provider

SignedIn = Literal["yes", "no", "unknown"]


def signed_in(provider: Provider, environ: Mapping[str, str], platform: str = sys.platform) -> SignedIn:
    """What can be seen of it.

    Args:
        environ: What a run would be given.
    """
    check = provider.sign_in
    if any(environ.get(name, "").strip() for name in check.env):
        return "yes"
    home = home_of(provider, environ)
    if any(_has_content(place(name, home, environ)) for name in check.files):
        return "yes"
    if platform not in check.certain_on:
        return "unknown"
    # Where even the home is not known, nothing is.
    known = bool(home) or all(os.path.isabs(name) or name.startswith("~/") for name in check.files)
    if not known or not environ.get("HOME"):
        return "unknown"
    return "unknown" if any(os.path.lexists(place(name, home, environ)) for name in check.maybe) else "no"


def home_of(provider: Provider, environ: Mapping[str, str]) -> str:
    """Where the user's own program of this kind keeps its things; empty if that is not known."""
    named = environ.get(provider.home.variable, "").strip() if provider.home.variable else ""
    return named or place(provider.home.directory, "", environ)


def place(name: str, home: str, environ: Mapping[str, str]) -> str:
    """The path that a name in a provider's entry stands for; empty if it cannot be told."""
    if name.startswith("~/"):
        user = environ.get("HOME", "")
        return os.path.join(user, name[2:]) if user else ""
    if os.path.isabs(name) or not name:
        return name
    return os.path.join(home, name) if home else ""


def _has_content(path: str) -> bool:
    try:
        return bool(path) and os.stat(path).st_size > 0
    except (OSError, ValueError):
        return False
