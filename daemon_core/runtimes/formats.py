"""What kind of program a file is: asked only when the system has refused to start it, to say why."""

from __future__ import annotations

import os
import struct
import sys
from typing import Final

HEAD_BYTES: Final = 4096

_ELF_MACHINES: Final = {
    0x03: "x86",
    0x15: "ppc64",
    0x16: "s390x",
    0x28: "arm",
    0x3E: "x86-64",
    0xB7: "arm64",
    0xF3: "riscv64",
}
_MACH_MACHINES: Final = {7: "x86", 12: "arm", 0x01000007: "x86-64", 0x0100000C: "arm64"}
_PE_MACHINES: Final = {0x014C: "x86", 0x01C4: "arm", 0x8664: "x86-64", 0xAA64: "arm64"}
_SAME: Final = {"amd64": "x86-64", "x86_64": "x86-64", "aarch64": "arm64", "i386": "x86", "i686": "x86"}
_SYSTEMS: Final = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
_PT_INTERP: Final = 3


def head_of(path: str) -> bytes:
    """The beginning of a file, or nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""


def this_machine() -> str:
    """What programs have to be built for here."""
    import platform

    machine = platform.machine().lower()
    return f"{_SYSTEMS.get(sys.platform, sys.platform)} on {_SAME.get(machine, machine)}"


def built_for(head: bytes) -> str:
    """Which system and machine a program is for; empty if that cannot be told."""
    try:
        if head.startswith(b"\x7fELF"):
            order = ">" if head[5] == 2 else "<"
            (machine,) = struct.unpack_from(f"{order}H", head, 18)
            return f"Linux on {_ELF_MACHINES.get(machine, f'a machine of kind {machine}')}"
        if head[:4] in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"):
            return f"macOS on {_mach(struct.unpack_from('<I', head, 4)[0])}"
        if head[:4] == b"\xca\xfe\xba\xbe":
            (count,) = struct.unpack_from(">I", head, 4)
            if count > 16:
                return ""  # Java's files begin alike
            kinds = [_mach(struct.unpack_from(">I", head, 8 + 20 * each)[0]) for each in range(count)]
            return f"macOS on {' and '.join(kinds)}"
        if head.startswith(b"MZ"):
            (offset,) = struct.unpack_from("<I", head, 0x3C)
            if head[offset : offset + 4] != b"PE\0\0":
                return "Windows"
            (machine,) = struct.unpack_from("<H", head, offset + 4)
            return f"Windows on {_PE_MACHINES.get(machine, f'a machine of kind {machine}')}"
    except (struct.error, IndexError):
        pass
    return ""


def interpreter_of(head: bytes) -> str:
    """What a script is read by, or what loads a program: it has to be there, too. Empty: nothing told."""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].decode("utf-8", "replace").split()
        if words and os.path.basename(words[0]) == "env":
            named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            return named[0] if named else words[0]
        return words[0] if words else ""
    try:
        if head[:4] == b"\x7fELF" and head[4] == 2 and head[5] == 1:
            offset, entry_bytes, count = (
                *struct.unpack_from("<Q", head, 32),
                *struct.unpack_from("<HH", head, 54),
            )
            for number in range(count):
                kind, _, begin, _, _, size = struct.unpack_from(
                    "<IIQQQQ", head, offset + number * entry_bytes
                )
                if kind == _PT_INTERP:
                    return head[begin : begin + size].rstrip(b"\0").decode("utf-8", "replace")
    except (struct.error, IndexError):
        pass
    return ""


def _mach(kind: int) -> str:
    return _MACH_MACHINES.get(kind, f"a machine of kind {kind}")
