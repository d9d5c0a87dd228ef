"""What every page is given: the link, the look, and the way to ask for something."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from desktop.commands import Command
from desktop.daemon.link import Link
from desktop.models.settings import SettingsStore
from desktop.theme.palette import Theme
from desktop.theme.tokens import Colours

if TYPE_CHECKING:
    from desktop.autostart import Autostart
    from desktop.notifications.messages import Messages


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to pages. ``do`` has a command done by the application."""

    link: Link
    theme: Theme
    do: Callable[[Command], None]
    store: SettingsStore | None = None
    """The settings; a page that needs them and is given none asks for itself."""
    autostart: Autostart | None = None
    """How the system starts programs at login; None: there is no switch for it."""
    messages: Messages | None = None
    """What was notified and is not handled; None: nothing notifies."""

    drafts: MutableMapping[str, str] = field(default_factory=dict)
    """What was written and not sent yet, by the place it was written at: it outlives the widgets."""

    @property
    def colours(self) -> Colours:
        """The scheme in force."""
        return self.theme.colours
