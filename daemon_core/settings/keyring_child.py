"""One question to the system keyring, in a process of its own: run as a program, never imported.

The keyring's library takes more memory than the rest of the daemon's parts, and a keyring may show a prompt
and block for ever; a process that ends or is ended by its starter costs nothing afterwards. The question
comes as one JSON object on standard input, the answer goes as one to standard output, so that a secret is in
no argument list: {"verb": "get|set|delete", "service", "account", "secret"?, "ask": may the user be shown a
prompt} → {"code": "ok|missing|none|locked|lost|failed", "secret"?, "backend", "detail"}.

``none``: no keyring runs here. ``locked``: it is there and not open. ``lost``: it took the secret and does
not have it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_DEFAULT_COLLECTION = "/org/freedesktop/secrets/aliases/default"


def main() -> None:
    question = json.loads(sys.stdin.buffer.read())
    _find_bus()
    answer = _answer(question)
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # No clean-up of the library's: a connection to the bus that hangs must not keep us.
    os._exit(0)


def _find_bus() -> None:
    """A daemon that was started over SSH or by cron has no address of the session bus; the place is known."""
    if sys.platform != "linux" or os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return
    place = f"/run/user/{os.getuid()}/bus"
    if os.path.exists(place) and os.stat(place).st_uid == os.getuid():
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={place}"


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        import keyring
        from keyring import errors
        from keyring.backends import fail, null
    except ImportError as error:
        return {"code": "none", "detail": str(error)}
    backend = ""
    try:
        chosen = keyring.get_keyring()
        backend = str(getattr(chosen, "name", type(chosen).__name__))
        if isinstance(chosen, fail.Keyring | null.Keyring):
            return {"code": "none", "backend": backend}
        if not question.get("ask") and _is_locked(chosen):
            return {"code": "locked", "backend": backend}
        code, secret = _do(chosen, question)
    except errors.NoKeyringError:
        return {"code": "none", "backend": backend}
    except (errors.KeyringLocked, errors.InitError):
        # A service that can be started but not opened (nobody there to be asked) says so on first use.
        return {"code": "locked", "backend": backend}
    # Whatever a keyring's library comes up with is an answer here. Its text may quote the secret.
    except Exception as error:  # noqa: BLE001
        detail = f"{type(error).__name__}: {error}".replace(str(question.get("secret") or "\0"), "…")
        return {"code": "failed", "backend": backend, "detail": detail[:500]}
    return {"code": code, "backend": backend, **({"secret": secret} if secret is not None else {})}


def _do(chosen: Any, question: dict[str, Any]) -> tuple[str, str | None]:
    from keyring import errors

    service, account = question["service"], question["account"]
    match question["verb"]:
        case "get":
            found = chosen.get_password(service, account)
            return ("missing", None) if found is None else ("ok", found)
        case "set":
            chosen.set_password(service, account, question["secret"])
            # Some take it and have nothing afterwards.
            return ("ok" if chosen.get_password(service, account) == question["secret"] else "lost"), None
        case _:
            try:
                chosen.delete_password(service, account)
            except errors.PasswordDeleteError:
                return "missing", None
            return "ok", None


def _is_locked(chosen: Any) -> bool:
    """Whether asking would show the user a prompt. Told for the Secret Service alone; others do not say."""
    parts = getattr(chosen, "backends", [chosen])
    if not any(type(part).__module__ == "keyring.backends.SecretService" for part in parts):
        return False
    import secretstorage

    bus = secretstorage.dbus_init()
    try:
        return bool(secretstorage.Collection(bus, _DEFAULT_COLLECTION).is_locked())
    except secretstorage.ItemNotFoundException:
        return True  # there is none yet: making one would prompt as well
    finally:
        bus.close()


if __name__ == "__main__":
    main()
