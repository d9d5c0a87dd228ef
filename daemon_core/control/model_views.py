"""What the control API says of an agent's models."""

from __future__ import annotations

from daemon_core.control.views import View


class ModelView(View, frozen=True, kw_only=True):
    """A model that an agent can be told to use."""

    id: str
    name: str = ""
    default: bool = False
    thinking_levels: tuple[str, ...] = ()
    default_level: str = ""


class ModelsView(View, frozen=True, kw_only=True):
    """The models of an agent."""

    runtime: str
    """Its provider."""
    models: tuple[ModelView, ...] = ()
    source: str = "none"
    """Who told: static (Ostler), command or acp (the agent), none (nobody can)."""
    error: str = ""
    """Why the agent could not be asked."""
    open: bool = True
    """Whether models that are not listed may be good, too."""
