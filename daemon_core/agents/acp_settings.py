"""What is set in a session before the prompt: mode, options, model, thinking level, one after the other.

Agents offer two ways. The older: ``modes`` and ``models`` beside the new session, with a method for each. The
newer: ``configOptions``, each with an id, a category and its values, set by one method, whose answer tells
all options anew (which thinking levels there are depends on the model).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from daemon_core.agents import events as ev
from daemon_core.agents.acp_launch import SET_MODEL, SET_OPTION, Quirks
from daemon_core.agents.acp_turn import short
from daemon_core.agents.events import Event

OPTIONS_LIMIT: Final = 32
VALUES_LIMIT: Final = 1000


class Choice(msgspec.Struct, frozen=True):
    """Something that can be chosen among values; ``names`` are what people call them, in the same order."""

    id: str = ""
    category: str = ""
    current: str = ""
    values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def value_of(self, wanted: str) -> str:
        """The value that is meant by an id or a name; empty where there is none."""
        if wanted in self.values:
            return wanted
        if wanted in self.names:
            return self.values[self.names.index(wanted)]
        return ""


class SettingsState(msgspec.Struct):
    """The part of a reader's snapshot that is this. ``left`` is what is still to be set, in order; ``trying``
    the model that was asked for and not answered yet."""

    left: list[str] = []
    mode: str = ""
    wanted_model: str = ""
    model_way: str = ""
    wanted_level: str = ""
    trying: str = ""
    config: tuple[str, ...] = ()
    model: str = ""
    modes: Choice | None = None
    models: Choice | None = None
    options: dict[str, Choice] = {}

    @classmethod
    def of(cls, quirks: Quirks, *, model: str, thinking: str) -> SettingsState:
        left = [
            name
            for name, given in (
                ("mode", quirks.mode),
                ("config", quirks.config),
                ("model", model),
                ("level", thinking),
            )
            if given
        ]
        return cls(
            left=left,
            mode=quirks.mode,
            wanted_model=model,
            model_way=quirks.model,
            wanted_level=thinking,
            config=quirks.config,
        )


class Ask(msgspec.Struct, frozen=True):
    """One request that sets something; ``what`` names it for people."""

    method: str
    params: dict[str, Any]
    what: str


class Settings:
    """Knows what is offered and what is still to be set."""

    def __init__(self, state: SettingsState) -> None:
        self.state = state

    def model(self) -> str:
        """The model in use as far as known."""
        return self.state.model

    def offered(self, told: Mapping[str, Any]) -> None:
        """A session, an answer or an update tells what there is to choose."""
        state = self.state
        modes, models = told.get("modes"), told.get("models")
        if isinstance(modes, dict):
            state.modes = _listed("mode", modes, "availableModes", "currentModeId", "id")
        if isinstance(models, dict):
            state.models = _listed("model", models, "availableModels", "currentModelId", "modelId")
            state.model = state.models.current or state.model
        if isinstance(told.get("configOptions"), list):
            state.options = {choice.id: choice for choice in options_of(told["configOptions"])}
            current = self._option("model")
            if current is not None:
                state.model = current.current or state.model

    def answered(self, result: Mapping[str, Any], *, refused: bool) -> None:
        """What was asked last is set, or is not."""
        state = self.state
        if state.trying and not refused:
            state.model = state.trying
        state.trying = ""
        self.offered(result)

    def next(self, session: str, found: list[Event]) -> Ask | None:
        """What to ask next; None when all is set, and what was offered is forgotten then."""
        state = self.state
        while state.left:
            what = state.left[0]
            asked = {"mode": self._mode, "config": self._config, "model": self._model, "level": self._level}[
                what
            ](found)
            if what != "config" or asked is None:
                state.left = state.left[1:]
            if asked is not None:
                return Ask(asked.method, {"sessionId": session, **asked.params}, asked.what)
        state.modes = state.models = None
        state.options = {}
        return None

    def _mode(self, found: list[Event]) -> Ask | None:
        wanted, modes = self.state.mode, self.state.modes
        if modes is not None and modes.value_of(wanted):
            value = modes.value_of(wanted)
            if value != modes.current:
                return Ask("session/set_mode", {"modeId": value}, f"the mode {wanted!r}")
            return None
        return self._set(self._option("mode"), wanted, f"the mode {wanted!r}")

    def _config(self, found: list[Event]) -> Ask | None:
        state = self.state
        while state.config:
            name, _, value = state.config[0].partition("=")
            state.config = state.config[1:]
            choice = state.options.get(name)
            if choice is None or choice.current != value:
                params = {"configId": name, "value": value}
                return Ask("session/set_config_option", params, f"the option {name}={value}")
        return None

    def _model(self, found: list[Event]) -> Ask | None:
        state = self.state
        wanted = state.wanted_model
        what = f"the model {wanted!r}"
        option = self._option("model")
        if option is not None and (state.model_way == SET_OPTION or state.models is None):
            if option.value_of(wanted) == option.current:
                return None
            state.trying = option.value_of(wanted) or wanted
            params = {"configId": option.id, "value": state.trying}
            return Ask("session/set_config_option", params, what)
        if state.model_way == SET_OPTION:
            found.append(ev.Notice(f"{what} is left out: the agent offers no choice", "setting_refused"))
            return None
        value = (state.models.value_of(wanted) if state.models is not None else "") or wanted
        if value == state.model:
            return None
        state.trying = value
        return Ask(SET_MODEL, {"modelId": value}, what)

    def _level(self, found: list[Event]) -> Ask | None:
        wanted = self.state.wanted_level
        what = f"the thinking level {wanted!r}"
        option = self._option("thought_level")
        if option is None or not option.value_of(wanted):
            found.append(ev.Notice(f"{what} is left out: this model does not offer it", "setting_refused"))
            return None
        return self._set(option, wanted, what)

    def _set(self, option: Choice | None, wanted: str, what: str) -> Ask | None:
        value = option.value_of(wanted) if option is not None else ""
        if option is None or not value or value == option.current:
            return None
        return Ask("session/set_config_option", {"configId": option.id, "value": value}, what)

    def _option(self, category: str) -> Choice | None:
        return next((each for each in self.state.options.values() if each.category == category), None)


def options_of(told: list[Any]) -> list[Choice]:
    """The options that can be chosen among values, of what an agent tells."""
    found = []
    for option in told[:OPTIONS_LIMIT]:
        if not isinstance(option, dict) or not short(option.get("id")):
            continue
        values = list(_values(option.get("options")))[:VALUES_LIMIT]
        name = short(option["id"])
        found.append(
            Choice(
                id=name,
                category=short(option.get("category")) or (name if name in ("mode", "model") else ""),
                current=short(option.get("currentValue")),
                values=tuple(value for value, _ in values),
                names=tuple(shown for _, shown in values),
            )
        )
    return found


def _values(options: Any) -> list[tuple[str, str]]:
    """Values with their names, also where they are in groups."""
    found: list[tuple[str, str]] = []
    for option in options if isinstance(options, list) else ():
        if not isinstance(option, dict):
            continue
        if isinstance(option.get("options"), list):
            found += _values(
                [each for each in option["options"] if isinstance(each, dict) and "value" in each]
            )
        elif short(option.get("value")):
            found.append((short(option["value"]), short(option.get("name"))))
    return found


def _listed(category: str, told: Mapping[str, Any], where: str, current: str, key: str) -> Choice:
    listed = told.get(where)
    entries = [
        (short(entry.get(key)), short(entry.get("name")))
        for entry in (listed[:VALUES_LIMIT] if isinstance(listed, list) else ())
        if isinstance(entry, dict) and short(entry.get(key))
    ]
    return Choice(
        id=category,
        category=category,
        current=short(told.get(current)),
        values=tuple(value for value, _ in entries),
        names=tuple(name for _, name in entries),
    )
