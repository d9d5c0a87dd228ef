"""The ``ostler`` command. Names, options, JSON fields and exit codes are stable: scripts rely on them.

Knows the control client and its views, the settings and the protocol; everything else is asked of the daemon.
Modules are imported when their command is used, since a short command is used in loops and prompts.
"""
