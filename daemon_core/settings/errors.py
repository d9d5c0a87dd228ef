"""What can be wrong with the user's set-up: one error, whose caller reports it and gives up."""

from __future__ import annotations

from pathlib import Path


class SettingsError(Exception):
    """A directory, the settings file or an override cannot be used as it is.

    Attributes:
        what: What is wrong, a sentence without its full stop.
        hint: What the user can do, a sentence without its full stop; may be empty.
        file: The file or directory it is about, None for an environment variable or an option.
        line: Line in ``file``, from 1; None where there is none.
        key: Dotted name of the setting, or the environment variable; empty where it is about none.
    """

    def __init__(
        self, what: str, *, hint: str = "", file: Path | None = None, line: int | None = None, key: str = ""
    ) -> None:
        self.what = what
        self.hint = hint
        self.file = file
        self.line = line
        self.key = key
        super().__init__(what)

    def __str__(self) -> str:
        where = ""
        if self.file is not None:
            where = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        text = f"{where}{self.what}."
        if not self.hint:
            return text
        return f"{text} {self.hint}" + ("" if self.hint.endswith("?") else ".")
