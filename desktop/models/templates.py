"""Saved prompts: a file each in ``templates/`` of the settings' directory, to be shared as files are.

The name of the file (without ``.md``) is the template's name, its text the prompt. ``{{what}}`` is a field
that is asked for when the template is used; ``{{what: hint}}`` says more. No Qt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon_core.settings.atomic import write_private

SUFFIX: Final = ".md"
MOST: Final = 100
SIZE_LIMIT_BYTES: Final = 64 * 1024
MOST_FIELDS: Final = 8
_FIELD: Final = re.compile(r"\{\{\s*([^{}:\n]{1,60}?)\s*(?::\s*([^{}\n]{0,120}?)\s*)?\}\}")
_BAD: Final = re.compile(r"[\x00-\x1f<>:\"/\\|?*]")


@dataclass(frozen=True, slots=True)
class Field:
    """Something to be filled in."""

    name: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A saved prompt."""

    name: str
    text: str

    @property
    def fields(self) -> tuple[Field, ...]:
        """What is to be filled in, each once."""
        return fields_of(self.text)


def fields_of(text: str) -> tuple[Field, ...]:
    """The fields of a text, in order, each once."""
    found: dict[str, Field] = {}
    for match in _FIELD.finditer(text):
        found.setdefault(match[1], Field(match[1], match[2] or ""))
    return tuple(found.values())[:MOST_FIELDS]


def filled(text: str, values: dict[str, str]) -> str:
    """The text with its fields filled in; those without a value stay as they are."""
    return _FIELD.sub(lambda match: values.get(match[1]) or match[0], text)


def load(directory: Path) -> list[Template]:
    """All templates by name; what cannot be read is left out. Looks at the disk."""
    try:
        paths = sorted(directory.iterdir(), key=lambda path: path.name.casefold())
    except OSError:
        return []
    found: list[Template] = []
    for path in paths:
        if path.suffix != SUFFIX or path.name.startswith(".") or len(found) == MOST:
            continue
        try:
            if path.stat().st_size <= SIZE_LIMIT_BYTES:
                found.append(Template(path.stem, path.read_text(encoding="utf-8").strip()))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def save(directory: Path, name: str, text: str) -> Path:
    """Keep a template under a name; one of the same name is replaced, as a whole.

    Raises:
        ValueError: The name is none that a file can have.
        OSError: It cannot be written.
    """
    clean = _BAD.sub("", name).strip().strip(".")
    if not clean or len(clean.encode()) > 200:
        raise ValueError(name)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{clean}{SUFFIX}"
    # The Qt thread waits for no disk; another file in its place is kept by the system's own order of writes.
    write_private(path, f"{text.strip()}\n".encode(), durable=False)
    return path


def remove(directory: Path, name: str) -> None:
    """Remove a template. Raises ``OSError``."""
    (directory / f"{name}{SUFFIX}").unlink(missing_ok=True)
