"""The README's table of agents is the registry's."""

from __future__ import annotations

from pathlib import Path

from daemon_core.runtimes.provider_table import replaced, table
from daemon_core.runtimes.providers import builtin

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_the_table_of_the_registry() -> None:
    text = README.read_text("utf-8")
    assert replaced(text, table(builtin())) == text, (
        "run `python -m daemon_core.runtimes.provider_table README.md`"
    )


def test_the_table_says_what_nobody_has_run() -> None:
    rows = {
        provider.id: row for provider, row in zip(builtin(), table(builtin()).splitlines()[2:], strict=True)
    }
    assert "2.1.197" in rows["claude"]
    assert "nobody has run it" in rows["kimi"]
    assert all(len(row.split(" | ")) == 10 for row in rows.values())


def test_a_document_without_marks_is_left_alone() -> None:
    assert replaced("no marks here", "x") is None
