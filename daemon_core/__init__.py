"""The Ostler daemon: everything but the desktop. Imports no Qt."""

import sys

__version__ = "0.1.0"

if getattr(sys, "frozen", False):
    # What was built once can be released under another version: the payload says which.
    from daemon_core.settings.installed import version

    __version__ = version(__version__)
