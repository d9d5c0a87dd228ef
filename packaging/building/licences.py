"""What a payload is made of: licence texts, and a bill of materials (CycloneDX, JSON).

Both are made from what the files themselves say: the metadata of installed Python packages, and the system's
package database for the libraries that come from it. A part whose licence is not found stops the build.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from building import places

DIRECTORY: Final = "licences"
SBOM: Final = "sbom.cdx.json"
_TEXTS: Final = re.compile(r"(^|/)(LICEN[CS]E|COPYING|NOTICE|COPYRIGHT)[^/]*$|/licenses/.", re.IGNORECASE)
_QT: Final = ("pyside6-essentials", "shiboken6")
_LONGEST_ID: Final = 120
_NAMESPACE: Final = uuid.UUID("4f1d7f0e-6a0c-5a6e-9d0b-6f3c1b2a7d55")


class LicenceError(Exception):
    """A part of the payload has no licence text that could be found."""


@dataclass(slots=True)
class Part:
    """One thing that somebody else made and that is in the payload."""

    name: str
    version: str
    purl: str
    licence: str
    texts: list[Path]
    kind: str = "library"
    files: list[str] = field(default_factory=list)


def gather(payload: Path) -> None:
    """Put the licence texts and the bill of materials into a payload."""
    parts = sorted([*_python_packages(payload), *_system_libraries(payload), _interpreter(), _bundler()],
                   key=lambda part: part.name.lower())  # fmt: skip
    for part in parts:
        if not part.texts:
            raise LicenceError(f"no licence text of {part.name} {part.version} was found")
        place = payload / DIRECTORY / part.name
        place.mkdir(parents=True)
        for text in part.texts:
            shutil.copyfile(text, _free(place / text.name))
    shutil.copyfile(places.SOURCE / "LICENSE", payload / DIRECTORY / "Ostler.txt")
    (payload / SBOM).write_text(json.dumps(_bill(parts), indent=1, ensure_ascii=False) + "\n")


def _free(path: Path) -> Path:
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


# --- the parts -------------------------------------------------------------------------------------


def _python_packages(payload: Path) -> Iterator[Part]:
    """The installed packages of which something is in the payload."""
    inside = payload / "_internal"
    for package in metadata.distributions():
        name = package.metadata["Name"]
        if name.lower() == "ostler" or not _is_in(package, inside):
            continue
        texts = [
            Path(str(package.locate_file(file)))
            for file in package.files or []
            if _TEXTS.search(str(file)) and not str(file).endswith((".py", ".pyc"))
        ]
        if name.lower().replace("_", "-") in _QT:
            texts = [
                places.PACKAGING / "licences" / text for text in ("Qt.txt", "LGPL-3.0.txt", "GPL-3.0.txt")
            ]
        yield Part(
            name,
            package.version,
            f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{package.version}",
            _licence(package.metadata),
            sorted(text for text in texts if text.is_file()),
        )


def _is_in(package: metadata.Distribution, inside: Path) -> bool:
    for file in package.files or []:
        path = file.as_posix()
        if path.endswith(".py"):
            path += "c"
        if path.endswith((".pyc", ".so")) and "__pycache__" not in path and (inside / path).exists():
            return True
    return False


def _licence(facts: metadata.PackageMetadata) -> str:
    for name in ("License-Expression", "License"):
        for found in facts.get_all(name) or []:
            if "\n" not in found and len(found) <= _LONGEST_ID:
                return str(found)
    for classifier in facts.get_all("Classifier") or []:
        if classifier.startswith("License :: "):
            return str(classifier.rpartition(" :: ")[2])
    return ""


def _system_libraries(payload: Path) -> Iterator[Part]:
    """What came from the machine's own packages: the standard library's libraries (OpenSSL, SQLite, ...)."""
    by_package: dict[str, list[str]] = {}
    for path in sorted((payload / "_internal").glob("lib*.so*")):
        if not path.is_symlink() and not path.name.startswith("libpython"):
            by_package.setdefault(_owner(path.name), []).append(path.name)
    for package, files in sorted(by_package.items()):
        said = _run("dpkg-query", "--show", "--showformat=${Version}", package)
        text = Path("/usr/share/doc", package.partition(":")[0], "copyright")
        yield Part(
            package.partition(":")[0],
            said.strip(),
            f"pkg:deb/debian/{package.partition(':')[0]}@{said.strip()}?arch={places.platform_name()}",
            "",
            [text] if text.is_file() else [],
            files=files,
        )


def _owner(library: str) -> str:
    """The system's package that a library is from."""
    table = _run("/sbin/ldconfig", "-p")
    found = re.search(rf"^\s+{re.escape(library)} .*=> (\S+)$", table, re.MULTILINE)
    if found is None:
        raise LicenceError(f"nobody knows where {library} is from")
    for path in (found[1], os.path.realpath(found[1])):
        for variant in (path, path.removeprefix("/usr"), f"/usr{path}"):
            said = _run("dpkg", "-S", variant, may_fail=True)
            if said:
                return said.partition(": ")[0]
    raise LicenceError(f"{found[1]} is from no package of this system")


def _interpreter() -> Part:
    version = platform.python_version()
    candidates = [
        Path(sysconfig.get_path("stdlib"), "LICENSE.txt"),
        Path(f"/usr/share/doc/python{sysconfig.get_python_version()}/copyright"),
    ]
    texts = [path for path in candidates if path.is_file()][:1]
    return Part("CPython", version, f"pkg:generic/python@{version}", "PSF-2.0", texts, kind="platform")


def _bundler() -> Part:
    package = metadata.distribution("pyinstaller")
    texts = [
        Path(str(package.locate_file(file)))
        for file in package.files or []
        if file.name.startswith("COPYING")
    ]
    return Part(
        "PyInstaller bootloader",
        package.version,
        f"pkg:pypi/pyinstaller@{package.version}",
        "GPL-2.0-or-later WITH Bootloader-exception",
        sorted(texts)[:1],
    )


def _run(*command: str, may_fail: bool = False) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    if done.returncode != 0:
        if may_fail:
            return ""
        raise LicenceError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


# --- the bill of materials -------------------------------------------------------------------------


def _bill(parts: list[Part]) -> dict[str, Any]:
    from building.payload import source_version

    version = source_version()
    own = "ostler"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(
            _NAMESPACE, "\n".join([places.commit(), version, *(part.purl for part in parts)])
        ).urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(places.source_time(), UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "Ostler",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": [_component(part) for part in parts],
        "dependencies": [{"ref": own, "dependsOn": sorted(part.purl for part in parts)}],
    }


def _component(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": part.kind,
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "purl": part.purl,
    }
    if part.licence:
        named = part.licence
        found["licenses"] = [
            {"expression": named} if " OR " in named or " AND " in named or " WITH " in named
            else {"license": {"name": named}}
        ]  # fmt: skip
    if part.files:
        found["properties"] = [{"name": "ostler:file", "value": file} for file in part.files]
    return found
