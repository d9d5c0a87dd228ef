"""Packs the files in a finished package anew, as small as xz makes them: what nfpm has for that leaves a
package a quarter to a third larger.

Nothing that a package says about its files is touched; what it says about its own bytes (lengths, sums) is
written anew. A package is in memory unpacked meanwhile: for the release tool.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import subprocess
from pathlib import Path
from typing import Any, Final, NamedTuple

DICTIONARY_BYTES: Final = 64 << 20
"""Unpacking takes about as much memory."""
_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEAD_BYTES: Final = 60
_LEAD_BYTES: Final = 96
_HEADER_MAGIC: Final = b"\x8e\xad\xe8\x01"


def filters(platform: str) -> list[dict[str, Any]]:
    """How xz packs for a platform, named as payloads name it: first, addresses in machine code are made
    alike."""
    code = [{"id": lzma.FILTER_X86}] if platform.endswith("-x86_64") else []
    return [*code, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": DICTIONARY_BYTES}]


def repack(path: Path, kind: str, platform: str) -> Path:
    """Pack a package of nfpm's (``deb``, ``rpm`` or ``archlinux``) anew; its file, which may have another
    name.

    Raises:
        ValueError: It is not built as expected.
    """
    match kind:
        case "deb":
            _replace(path, _deb(path.read_bytes(), platform))
            return path
        case "rpm":
            _replace(path, _rpm(bytearray(path.read_bytes()), platform))
            return path
    target = path.with_suffix(".xz")
    _replace(target, _packed(_unpacked_tar(path), platform))
    path.unlink()
    return target


def _packed(data: bytes, platform: str) -> bytes:
    return lzma.compress(data, filters=filters(platform))


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)


def _unpacked_tar(path: Path) -> bytes:
    """The archive that is in a ``.tar.zst``, every entry as it is."""
    done = subprocess.run(
        ["bsdtar", "--format=gnutar", "-cf", "-", f"@{path}"], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise ValueError(f"{path.name} cannot be unpacked: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _deb(data: bytes, platform: str) -> bytes:
    at = len(_AR_MAGIC)
    out = [_AR_MAGIC]
    while at < len(data):
        head = data[at : at + _AR_HEAD_BYTES]
        name, size = head[:16].decode().rstrip(" /"), int(head[48:58])
        body = data[at + _AR_HEAD_BYTES : at + _AR_HEAD_BYTES + size]
        at += _AR_HEAD_BYTES + size + size % 2
        if name == "data.tar":
            name, body = "data.tar.xz", _packed(body, platform)
        head = name.encode().ljust(16) + head[16:48] + str(len(body)).encode().ljust(10) + head[58:]
        out += [head, body, b"\n" * (len(body) % 2)]
    return b"".join(out)


# --- RPM -------------------------------------------------------------------------------------------


class _Value(NamedTuple):
    """Where a tag's value is in the file, and of which of the format's kinds it is."""

    kind: int
    at: int


_NUMBER, _TEXT, _BYTES, _TEXTS = 4, 6, 7, 8
_FILES_SHA256: Final = 5092
_HEADER_SHA1, _HEADER_SHA256, _LENGTH, _MD5 = 269, 273, 1000, 1004
_STAY: Final = frozenset({62, 1007})
"""Of what is said about the file: what does not depend on how the files are packed (the end of the header
itself, and their length unpacked)."""


def _rpm(data: bytearray, platform: str) -> bytes:
    """Lead, signature (padded), header, files: the header has the files' sum, the signature the header's and
    the whole's. All sums are of fixed length, so they are written in place."""
    signature, behind = _values(data, _LEAD_BYTES)
    start = behind + -behind % 8
    header, files_at = _values(data, start)
    packed = _packed(lzma.decompress(bytes(data[files_at:])), platform)
    del data[files_at:]
    _write_sum(data, header[_FILES_SHA256], hashlib.sha256(packed).digest())
    main = bytes(data[start:])
    for tag, value in signature.items():
        if tag == _LENGTH and value.kind == _NUMBER:
            struct.pack_into(">I", data, value.at, len(main) + len(packed))
        elif tag == _MD5:
            digest = hashlib.md5(main, usedforsecurity=False)
            digest.update(packed)
            _write_sum(data, value, digest.digest())
        elif tag == _HEADER_SHA1:
            _write_sum(data, value, hashlib.sha1(main, usedforsecurity=False).digest())
        elif tag == _HEADER_SHA256:
            _write_sum(data, value, hashlib.sha256(main).digest())
        elif tag not in _STAY:
            raise ValueError(f"the package says something of itself that is not known here: {tag}")
    return bytes(data) + packed


def _values(data: bytearray, at: int) -> tuple[dict[int, _Value], int]:
    """The values of a header that begins there, by tag, and where it ends."""
    if data[at : at + 4] != _HEADER_MAGIC:
        raise ValueError("there is no header where an RPM has one")
    count, length = struct.unpack_from(">II", data, at + 8)
    store = at + 16 + 16 * count
    found = {}
    for number in range(count):
        tag, kind, offset, _ = struct.unpack_from(">IIII", data, at + 16 + 16 * number)
        found[tag] = _Value(kind, store + offset)
    return found, store + length


def _write_sum(data: bytearray, value: _Value, digest: bytes) -> None:
    """Write a sum in the place of another one of its kind."""
    written = digest if value.kind == _BYTES else digest.hex().encode()
    end = value.at + len(written)
    if value.kind not in (_TEXT, _TEXTS, _BYTES) or (value.kind != _BYTES and data[end] != 0):
        raise ValueError("a sum has another length than expected")
    data[value.at : end] = written
