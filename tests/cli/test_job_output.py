"""Output of a job as it comes, cut anywhere."""

from __future__ import annotations

import io
import sys

import pytest

from daemon_core.cli.job_output import Printer

SAID = "a\x1b[31mred\x1b[0m\x1b]0;title\x07b\x1b(Bc\x1b[?25lü 90%\r100%\r\nend\x1bc\n"


@pytest.mark.parametrize(
    ("colours", "shown"),
    [(False, "aredbcü 90%\n100%\nend\n"), (True, "a\x1b[31mred\x1b[0mbcü 90%\n100%\nend\n")],
)
def test_pieces_show_what_the_whole_shows(monkeypatch: pytest.MonkeyPatch, colours: bool, shown: str) -> None:
    data = SAID.encode()
    for cut in range(len(data) + 1):
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        printer = Printer(colours)
        printer.show(data[:cut])
        printer.show(data[cut:])
        printer.end()
        assert out.getvalue() == shown, cut
