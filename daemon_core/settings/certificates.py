"""Where this system keeps the certificates that it trusts, for a payload's own OpenSSL.

A bundled OpenSSL knows the directories of the system it was built on. On another distribution they are
elsewhere, and without them every server looks like a stranger. They are pointed out only while a library
makes its contexts (or for a process that ends soon): programs that are started from here must not see it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

VARIABLE: Final = "SSL_CERT_FILE"
PLACES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora and its relatives
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)


def missing(places: Sequence[str] = PLACES) -> str:
    """The file to point out; empty where OpenSSL finds certificates by itself, or there are none."""
    import ssl

    known = ssl.get_default_verify_paths()
    if known.cafile or (known.capath and _has_files(known.capath)):
        return ""
    return next((place for place in places if os.path.isfile(place)), "")


@contextmanager
def pointed_out(places: Sequence[str] = PLACES) -> Iterator[None]:
    """Contexts that are made meanwhile trust what this system trusts."""
    place = missing(places)
    if not place:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = place
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _has_files(directory: str) -> bool:
    try:
        with os.scandir(directory) as found:
            return any(True for _ in found)
    except OSError:
        return False
