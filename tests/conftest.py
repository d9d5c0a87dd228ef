"""What holds for all tests."""

from __future__ import annotations

import gc
import signal
import sys

# Whoever starts the tests in the background may have them ignore Ctrl-C, and every program that they start
# would inherit that: tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_windows: list[str] = []
"""The last test, if it was one of windows."""


def pytest_runtest_logstart(nodeid: str) -> None:
    """Tests of windows and tests with threads share a process. What the former have left must not be taken
    away in a thread of the latter: Qt would go on with what is gone, in a loop that never ends."""
    if _windows and not nodeid.startswith("tests/desktop/"):
        _windows.clear()
        core = sys.modules.get("PySide6.QtCore")
        if core is None or core.QCoreApplication.instance() is None:
            return
        core.QCoreApplication.sendPostedEvents(None, int(core.QEvent.Type.DeferredDelete.value))
        gc.collect()
        gc.freeze()  # what somebody holds still stays for good


def pytest_runtest_logfinish(nodeid: str) -> None:
    if nodeid.startswith("tests/desktop/"):
        _windows[:] = [nodeid]
