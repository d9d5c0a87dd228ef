"""Writes compiled modules into a payload."""

from __future__ import annotations

import importlib.util
import marshal
import sysconfig
from pathlib import Path
from pprint import pformat
from typing import Final

_UNCHECKED_HASH: Final = 0b01
_KEPT_VARIABLES: Final = ("EXT_SUFFIX", "SOABI", "TZPATH", "VERSION", "py_version_short")
"""Of how Python was built, what a program may ask for at run time."""


def write_module(path: Path, source: str, name: str) -> None:
    """Write a module as the import system takes it, without a look at any source."""
    code = compile(source, name, "exec")
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + bytes(8)
    path.write_bytes(header + marshal.dumps(code))
    path.chmod(0o644)


def forget_builder(internal: Path) -> None:
    """Replace the table of how Python was built, which names the builder's places, by a short one."""
    variables = {name: sysconfig.get_config_var(name) for name in _KEPT_VARIABLES}
    source = f"build_time_vars = {pformat(variables)}\n"
    for path in internal.glob("_sysconfigdata_*.pyc"):
        write_module(path, source, f"{path.stem}.py")
