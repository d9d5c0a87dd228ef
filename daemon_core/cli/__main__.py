"""``python -m daemon_core.cli``: the same as ``ostler``."""

from daemon_core.cli.main import main

main()
