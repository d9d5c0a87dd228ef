"""Which way leads to a server: straight, or through a proxy that the environment names."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether a server is on this machine, so that no wire is between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The HTTP proxy that the environment names for a server; None: none."""
    parts = urlsplit(url)
    if is_loopback(url):
        return None
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    proxy = next((environ[name] for name in names if environ.get(name)), "")
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not proxy.startswith(("http://", "https://")):
        return None
    bypassed = urllib.request.proxy_bypass_environment(parts.netloc, {"no": excepted})  # type: ignore[attr-defined]
    return None if bypassed else proxy
