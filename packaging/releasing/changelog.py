"""What is new, from the changelogs: ``CHANGELOG.md``, and ``CHANGELOG.de.md``, ``CHANGELOG.zh.md`` if they
are there.

A section is ``## 1.4.0 (2026-11-21)``; its bullets become the notes that the update shows. English is needed,
the others are shown where they are there.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from releasing.errors import ReleaseError

LANGUAGES: Final = {"en": "CHANGELOG.md", "de": "CHANGELOG.de.md", "zh": "CHANGELOG.zh.md"}
MOST_LINES: Final = 40
MOST_CHARS: Final = 500
"""What clients show at most of one line and of all."""
_HEADING: Final = re.compile(r"^##\s+\[?v?(?P<version>[0-9][^\s\]]*)\]?\s*(?P<rest>.*)$")
_BULLET: Final = re.compile(r"^[-*]\s+(?P<text>.+)$")


def notes(root: Path, version: str, *, allow_dirty: bool = False) -> dict[str, list[str]]:
    """The notes of a version by language.

    Args:
        allow_dirty: Take changelogs with changes that are not committed.

    Raises:
        ReleaseError: The English section is missing, empty, doubled or marked as unreleased, a line is too
        long,
            or a changelog has changes that are not committed.
    """
    found: dict[str, list[str]] = {}
    for language, name in LANGUAGES.items():
        path = root / name
        if language != "en" and not path.exists():
            continue
        if not allow_dirty and _is_dirty(path):
            raise ReleaseError(f"{name} has changes that are not committed (commit them, or --allow-dirty)")
        lines = section(_read(path), version, name)
        if lines is None:
            if language == "en":
                raise ReleaseError(
                    f"{name} has no section for {version}: write '## {version} (date)' with what is new"
                )
            continue
        found[language] = lines
    return found


def section(text: str, version: str, name: str = "CHANGELOG.md") -> list[str] | None:
    """The bullets of a version's section; None: there is no such section.

    Raises:
        ReleaseError: The section cannot be shown to anybody.
    """
    bullets: list[str] = []
    inside = False
    seen = 0
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading is not None or line.startswith("## "):
            inside = heading is not None and heading["version"] == version
            seen += inside
            if inside and heading is not None and "unreleased" in heading["rest"].lower():
                raise ReleaseError(f"{name} still calls {version} unreleased: write its date")
            continue
        if not inside:
            continue
        bullet = _BULLET.match(line)
        if bullet is not None:
            bullets.append(bullet["text"].strip())
        elif bullets and line.startswith("  ") and line.strip():
            bullets[-1] += " " + line.strip()
    if not seen:
        return None
    if seen > 1:
        raise ReleaseError(f"{name} has {seen} sections for {version}")
    if not bullets:
        raise ReleaseError(f"{name}'s section for {version} says nothing (bullets, '- …', are what is shown)")
    for bullet_text in bullets:
        if len(bullet_text) > MOST_CHARS:
            raise ReleaseError(
                f"{name}: a line of {version} is longer than {MOST_CHARS}: {bullet_text[:60]}…"
            )
    if len(bullets) > MOST_LINES:
        raise ReleaseError(f"{name}: {version} has {len(bullets)} lines, more than {MOST_LINES}: sum them up")
    return [_plain(each) for each in bullets]


def _plain(text: str) -> str:
    """Without Markdown's marks for code, emphasis and links: notes are shown as they are."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    return re.sub(r"\*\*([^*]+)\*\*|`([^`]+)`", lambda match: match[1] or match[2], text)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise ReleaseError(f"there is no {path}") from error
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error


def _is_dirty(path: Path) -> bool:
    try:
        said = subprocess.run(
            ["git", "status", "--porcelain", "--", path.name],
            cwd=path.parent, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False  # no git, or not a work tree: nothing is known
    return bool(said.stdout.strip())
