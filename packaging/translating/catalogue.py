"""Catalogues: PO files are read and written, compiled as ``gettext`` wants them, and held to the sources."""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from translating.sources import Text

PLURALS: Final[Mapping[str, tuple[int, str]]] = {
    "de": (2, "nplurals=2; plural=(n != 1);"),
    "zh_CN": (1, "nplurals=1; plural=0;"),
}
"""For each language: how many forms a number has, and which one goes with it."""
_FIELD: Final = re.compile(r"\{(\w+)[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A text with its translations: one, or one for each form of the number."""

    one: str
    plural: str
    forms: tuple[str, ...]


def read(path: Path) -> dict[str, Entry]:
    """A catalogue by its English; empty where there is no file.

    Raises:
        ValueError: A line makes no sense; its number is in the message.
    """
    if not path.exists():
        return {}
    found: dict[str, Entry] = {}
    parts: dict[str, str] = {}
    key = ""

    def close() -> None:
        if parts.get("msgid"):
            forms = tuple(parts[name] for name in sorted(parts) if name.startswith("msgstr"))
            found[parts["msgid"]] = Entry(parts["msgid"], parts.get("msgid_plural", ""), forms)
        parts.clear()

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            if not line.strip():
                close()
            continue
        if not line.startswith('"'):
            key, _space, line = line.partition(" ")
            parts[key] = ""
        try:
            parts[key] += str(ast.literal_eval(line))
        except (SyntaxError, ValueError, KeyError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    close()
    return found


def write(path: Path, language: str, texts: Mapping[str, Text], entries: Mapping[str, Entry]) -> None:
    """Write a catalogue with exactly these texts; what has no translation yet is empty in it."""
    count, rule = PLURALS[language]
    lines = [
        "# Ostler's words. Made and kept complete by packaging/translations.",
        'msgid ""',
        'msgstr ""',
        f'"Language: {language}\\n"',
        '"MIME-Version: 1.0\\n"',
        '"Content-Type: text/plain; charset=UTF-8\\n"',
        '"Content-Transfer-Encoding: 8bit\\n"',
        f'"Plural-Forms: {rule}\\n"',
        "",
    ]
    for text in sorted(texts.values(), key=lambda each: (min(each.places), each.one)):
        known = entries.get(text.one)
        forms = known.forms if known is not None and known.plural == text.plural else ()
        lines += [f"#: {place}" for place in sorted(text.places)]
        lines.append(f"msgid {_quoted(text.one)}")
        if text.plural:
            lines.append(f"msgid_plural {_quoted(text.plural)}")
            for index in range(count):
                lines.append(f"msgstr[{index}] {_quoted(forms[index] if index < len(forms) else '')}")
        else:
            lines.append(f"msgstr {_quoted(forms[0] if forms else '')}")
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def compiled(language: str, entries: Mapping[str, Entry]) -> bytes:
    """What ``gettext`` loads; the same bytes for the same catalogue."""
    _count, rule = PLURALS[language]
    head = f"Language: {language}\nContent-Type: text/plain; charset=UTF-8\nPlural-Forms: {rule}\n"
    pairs = [("", head)]
    for entry in entries.values():
        if entry.forms and all(entry.forms):
            key = f"{entry.one}\0{entry.plural}" if entry.plural else entry.one
            pairs.append((key, "\0".join(entry.forms)))
    encoded = sorted((key.encode(), value.encode()) for key, value in pairs)
    count = len(encoded)
    ids = b"".join(key + b"\0" for key, _ in encoded)
    strings = b"".join(value + b"\0" for _, value in encoded)
    at = 28 + 16 * count
    tables: list[bytes] = []
    for index, base in ((0, at), (1, at + len(ids))):
        offset = base
        for pair in encoded:
            tables.append(struct.pack("<II", len(pair[index]), offset))
            offset += len(pair[index]) + 1
    return (
        struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, at) + b"".join(tables) + ids + strings
    )


def mistakes(language: str, texts: Mapping[str, Text], entries: Mapping[str, Entry]) -> Iterator[str]:
    """What is missing, stale or wrong, a line each."""
    count, _rule = PLURALS[language]
    for text in texts.values():
        entry = entries.get(text.one)
        wanted = count if text.plural else 1
        if entry is None or entry.plural != text.plural or len(entry.forms) != wanted or not all(entry.forms):
            yield f"{language}: not translated: {text.one!r} ({min(text.places)})"
            continue
        fields = set(_FIELD.findall(text.plural or text.one))
        for index, form in enumerate(entry.forms):
            # "One task" may do without its number, the others have to say all.
            spared = {"n"} if text.plural and index == 0 and wanted > 1 else set()
            given = set(_FIELD.findall(form))
            if not fields - spared <= given <= fields:
                yield f"{language}: {form!r} is to have {sorted(fields)}, as {text.one!r} has"
            if form.endswith("…") != (text.plural or text.one).endswith("…"):
                yield f"{language}: {form!r} and {text.one!r} end differently"
            if form.strip() != form and text.one.strip() == text.one:
                yield f"{language}: {form!r} has white space at an end"
    for one in entries.keys() - texts.keys():
        yield f"{language}: nobody says this any more: {one!r}"
