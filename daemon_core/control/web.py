"""What the two HTTP applications share: guards, bodies, answers, errors."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from daemon_core.control.errors import STATUS, ControlError
from daemon_core.control.peers import foreign
from daemon_core.journal import JournalError

BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""A prompt of 1 MB may be six times that in JSON; nothing else comes near."""

_LOGGED_CHARS: Final = 200

log = logging.getLogger("ostler.control")
_Body = TypeVar("_Body")


def answer(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", charset="utf-8"
    )


def refusal(error: ControlError) -> web.Response:
    return answer({"error": {"code": error.code, "params": error.params}}, error.http_status)


async def body(request: web.Request, kind: type[_Body]) -> _Body:
    """The request's body as ``kind``; an empty one counts as ``{}``.

    Raises:
        ControlError: invalid_input, too_large.
    """
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise ControlError("too_large", {"limit_bytes": BODY_LIMIT_BYTES}) from error
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        detail = {"field": "body", "why": "schema", "detail": str(error)}
        raise ControlError("invalid_input", detail) from error


def number(request: web.Request, name: str) -> int | None:
    """A whole number of the query, None where it is not given.

    Raises:
        ControlError: invalid_input.
    """
    text = request.query.get(name)
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ControlError("invalid_input", {"field": name, "why": "not_a_number", "given": text[:40]})
    return int(text)


def flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true", "yes")


def asked_of(request: web.Request) -> str:
    """What was asked for, as a log takes it: as it came, since decoded it may have lines of its own."""
    shown = "".join(char if char.isprintable() else "?" for char in request.raw_path[:_LOGGED_CHARS])
    return f"{request.method} {shown}"


def guard(hosts: frozenset[str]) -> Middleware:
    """A middleware that refuses what a web page may have sent: before anything else looks at the request."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = foreign(request.headers, hosts)
        if why is not None:
            log.warning("refused a request with a foreign %s: %s", why, asked_of(request))
            return refusal(ControlError("refused_peer", {"why": why}))
        return await handler(request)

    return check


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as code and parameters. A stream that has begun is cut off instead."""
    try:
        return await handler(request)
    except ControlError as error:
        return refusal(error)
    except web.HTTPException as error:
        if error.status == 413:
            return refusal(ControlError("too_large", {"limit_bytes": BODY_LIMIT_BYTES}))
        if error.status in (404, 405):
            params = {"method": request.method, "path": request.path}
            return refusal(ControlError("no_such_route", params, error.status))
        raise
    except ConnectionError:
        if request.transport is not None and not request.transport.is_closing():
            raise
        return web.Response(status=408)  # the client went away: nobody hears this
    except JournalError as error:
        log.error("a request failed: %s: %s", asked_of(request), error)
        return refusal(ControlError("internal", {"detail": str(error)}))
    # The boundary of a request: one that goes wrong must not take the daemon along.
    except Exception:
        log.exception("a request failed: %s", asked_of(request))
        return refusal(ControlError("internal", {}, STATUS["internal"]))
