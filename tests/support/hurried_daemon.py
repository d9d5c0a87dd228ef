"""A daemon whose periods and deadlines towards servers are short, so that tests of faults need not wait for
the protocol's own: ``python tests/support/hurried_daemon.py``. Everything else is the real one.

``OSTLER_TEST_TASKS`` names a file: on SIGUSR1 the names of all asyncio tasks are written to it, one a line.
"""

import asyncio
import functools
import os
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])


def main() -> None:
    """Change the values before anybody has taken them, then be the daemon."""
    from daemon_core.connections import timing

    timing.SERVER = timing.Timing(  # type: ignore[misc]
        poll_s=1.0,
        heartbeat_s=1.0,
        status_poll_s=1.0,
        lease_s=0.5,
        sync_s=1.5,
        reconcile_quiet_s=0.2,
        first_retry_s=0.2,
        retry_limit_s=1.5,
        handshake_s=2.0,
        write_s=2.0,
        close_s=0.2,
        read_deadline_s=5.0,
        answer_s=1.5,
        recovery_window_s=1.0,
        recovery_retry_s=1.0,
    )
    timing.Timeouts = functools.partial(  # type: ignore[assignment,misc]
        timing.Timeouts,
        control_s=1.5,
        connect_s=1.0,
        lease_s=1.0,
        messages_s=1.0,
        pin_s=1.0,
        renew_s=1.5,
        workspaces_s=1.5,
    )
    from daemon_core import app

    signal.signal(signal.SIGUSR1, lambda *_: tell_tasks())
    app.main()


def tell_tasks() -> None:
    """Runs in the main thread, which is in the event loop: nothing else changes the tasks meanwhile."""
    wanted = os.environ.get("OSTLER_TEST_TASKS")
    if wanted:
        names = sorted(task.get_name() for task in asyncio.all_tasks())
        temporary = Path(f"{wanted}.new")
        temporary.write_text("\n".join(names) + "\n")
        temporary.replace(wanted)


if __name__ == "__main__":
    main()
