"""The daemon of a payload, from source: the real one with a version stamped on it, or a broken one.

``python tests/support/payload_daemon.py VERSION VARIANT [ARGUMENT...]``. On SIGUSR2 it switches to the
version that is in the file ``OSTLER_TEST_APPLY`` (with the time it may take to come up); how that was refused
is written beside it. Trials are short.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])


def main(version: str, variant: str) -> None:
    """Change what this variant is about, then be the daemon."""
    import daemon_core

    daemon_core.__version__ = version
    if variant == "crash":
        raise ImportError("a module is missing")
    if variant == "hang":
        time.sleep(3600)
    from daemon_core import app
    from daemon_core.journal import Journal, JournalError
    from daemon_core.settings.errors import SettingsError
    from daemon_core.updates.errors import UpdateError

    class PayloadDaemon(app.Daemon):
        async def run(self) -> None:
            if settle := os.environ.get("OSTLER_TEST_SETTLE"):
                limits = self.changeover.switch.limits
                self.changeover.switch.limits = limits._replace(settle_s=float(settle), revive_s=0.2)
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGUSR2, lambda: self.nursery.start(self.apply(), "apply")
            )
            await super().run()

        async def apply(self) -> None:
            wanted = Path(os.environ["OSTLER_TEST_APPLY"])
            target, healthy_s = wanted.read_text().split()
            self.changeover.switch.limits = self.changeover.switch.limits._replace(
                healthy_s=float(healthy_s),
                settle_s=float(os.environ.get("OSTLER_TEST_SETTLE", "0.5")),
                revive_s=0.2,
            )
            try:
                if target == "back":
                    await self.changeover.switch.rollback()
                else:
                    await self.changeover.switch.apply(target)
            except UpdateError as error:
                wanted.with_suffix(".refused").write_text(error.code)

    app.Daemon = PayloadDaemon  # type: ignore[misc]
    if variant == "no_settings":

        def not_mine(*_: object) -> None:
            raise SettingsError("this version does not take daemon.slots = 8")

        app.load_settings = not_mine  # type: ignore[attr-defined,assignment]
    if variant == "no_journal":

        async def refuse(*_: object, **__: object) -> None:
            raise JournalError("this journal cannot be read")

        Journal.open = refuse  # type: ignore[method-assign,assignment]
    if variant == "no_shim":
        from daemon_core.processes import client

        client.shim_command = lambda: ["/bin/false"]
    if variant in ("crash_later", "hang_later") and os.environ.get("OSTLER_TRIAL"):
        from daemon_core.updates import trial

        reopened = trial.OnTrial._mark
        trial.BEAT_S = 0.1

        async def die(self: trial.OnTrial, *arguments: object) -> None:
            await reopened(self, *arguments)  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            if variant == "hang_later":
                time.sleep(3600)
            os._exit(9)

        trial.OnTrial._mark = die  # type: ignore[method-assign,assignment]
    app.main()


if __name__ == "__main__":
    chosen = sys.argv[1:3]
    del sys.argv[1:3]
    main(*chosen)
