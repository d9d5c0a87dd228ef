"""``packaging/translations [--check]``: bring the catalogues in line with the sources, or check them."""

from __future__ import annotations

import sys
from pathlib import Path

from translating.catalogue import PLURALS, compiled, mistakes, read, write
from translating.sources import SourceError, collect, setting_texts

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    try:
        texts = {**setting_texts(), **collect(ROOT / "desktop")}
    except SourceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    wrong: list[str] = []
    for language in PLURALS:
        source = ROOT / "resources" / "translations" / f"{language}.po"
        shipped = ROOT / "desktop" / "locale" / language / "LC_MESSAGES" / "ostler.mo"
        if not check:
            write(source, language, texts, read(source))
            shipped.parent.mkdir(parents=True, exist_ok=True)
            shipped.write_bytes(compiled(language, read(source)))
        entries = read(source)
        wrong += mistakes(language, texts, entries)
        if not shipped.exists() or shipped.read_bytes() != compiled(language, entries):
            wrong.append(f"{language}: {shipped.relative_to(ROOT)} is stale: run packaging/translations")
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    sys.stderr.write(f"{len(texts)} texts, {len(wrong)} mistakes\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
