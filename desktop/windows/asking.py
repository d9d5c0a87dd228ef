"""Questions of a widget to the daemon: an answer that comes when the widget is gone is heard by nobody.

Qt drops connections to objects that are gone, and knows nothing of callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import shiboken6
from PySide6.QtCore import QObject

from desktop.daemon.http import TIMEOUT_MS, Call, Failure
from desktop.daemon.link import Link

T = TypeVar("T")


def ask(
    asker: QObject,
    link: Link,
    kind: type[T],
    method: str,
    path: str,
    body: Any = None,
    *,
    done: Callable[[T], None] | None = None,
    failed: Callable[[Failure], None] | None = None,
    timeout_ms: int = TIMEOUT_MS,
) -> Call[T]:
    """``Link.call`` whose callbacks are only called as long as ``asker`` is there."""
    return link.call(
        kind,
        method,
        path,
        body,
        done=None if done is None else while_there(asker, done),
        failed=None if failed is None else while_there(asker, failed),
        timeout_ms=timeout_ms,
    )


def while_there(receiver: QObject, callback: Callable[[T], None]) -> Callable[[T], None]:
    """The callback, as long as its receiver is there."""

    def call(value: T) -> None:
        if shiboken6.isValid(receiver):
            callback(value)

    return call
