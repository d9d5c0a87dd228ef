"""What every page is given: the link, the look, and the way to ask for something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.theme.palette import Theme
from desktop.theme.tokens import Colours


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to pages. ``do`` has a command done by the application."""

    link: Link
    theme: Theme
    do: Callable[[Command], None]

    @property
    def colours(self) -> Colours:
        """The scheme in force."""
        return self.theme.colours
