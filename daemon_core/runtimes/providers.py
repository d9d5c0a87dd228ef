"""The kinds of agent CLI that Ostler knows. They are data: one TOML file each.

Those that come with Ostler are in ``provider_files`` beside this module; the user's own are in ``providers``
in the settings directory. A file of a known protocol family is all it takes to add a provider. One that
cannot be read is a ``Mistake`` with file and line, and all the others load.

A provider whose family is not among those that Ostler can drive is found and shown, with the reason, and not
offered to any server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from daemon_core.agents.family import Drive
from daemon_core.runtimes.places import COMMON_PLACES
from daemon_core.workdirs.environments import BriefWay, Layout

__all__ = [
    "COMMON_PLACES",
    "Brief",
    "Check",
    "Home",
    "KnownModel",
    "Mistake",
    "Models",
    "Provider",
    "Registry",
    "SignIn",
    "Skills",
    "Thinking",
    "builtin",
    "load",
    "provider",
]

FILES: Final = Path(__file__).with_name("provider_files")
_FIRST: Final = ("claude", "codex", "opencode", "gemini", "qwen", "shell")
"""Shown first, in this order; the others by name."""

ModelSource = Literal["none", "static", "command", "acp"]
ListReader = Literal["", "codex", "opencode", "lines", "table", "json", "names"]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a provider's file: a name that is not known is a mistake."""


class Brief(_Entry, frozen=True, kw_only=True):
    """How the brief of a task gets to the agent."""

    way: BriefWay = "none"
    """``instructions``: by its own option; ``file``: it reads ``file``; ``prompt``: leading the prompt."""
    file: str = ""
    """What it reads in its working directory."""


class Skills(_Entry, frozen=True, kw_only=True):
    """Where it looks for skills."""

    directory: str = ".agent_context/skills"
    """In the working directory."""
    in_home: bool = False
    """Below the provider's home of the task instead."""
    user: tuple[str, ...] = ()
    """The user's own, best first."""


class Home(_Entry, frozen=True, kw_only=True):
    """Where it keeps sign-in, settings and sessions."""

    variable: str = ""
    """Names another place than ``directory``."""
    directory: str = ""


class SignIn(_Entry, frozen=True, kw_only=True):
    """How to see, without asking it or anybody, whether somebody is signed in."""

    env: tuple[str, ...] = ()
    """One of these is set: yes."""
    files: tuple[str, ...] = ()
    """One of these is there and not empty: yes. In its home where relative."""
    maybe: tuple[str, ...] = ()
    """One of these is there: a key may be in it, so nobody can say no."""
    certain_on: tuple[str, ...] = ()
    """Systems (``sys.platform``) on which none of all that means no; elsewhere a keychain may have it."""
    hint: str = ""
    """How to sign in, in English; the rest says the same without words."""
    run: str = ""
    """What to run in a terminal."""
    type: str = ""
    """What to type there."""
    choose: bool = False
    """Whether it asks there."""
    set: str = ""
    """A variable that makes it unnecessary."""

    @property
    def how(self) -> tuple[str, dict[str, str]]:
        """``hint`` as a code with parameters (run, type, set); empty where nothing is known but words."""
        if not self.run or not self.set:
            return "", {}
        code = "sign_in_type" if self.type else "sign_in_choose" if self.choose else "sign_in_run"
        return code, {"run": self.run, "type": self.type, "set": self.set}


class Check(_Entry, frozen=True, kw_only=True):
    """How to see that a program is the right one, where others have its name or not every version will do."""

    args: tuple[str, ...] = ()
    """What it is asked with; empty: it is not asked."""
    answer: dict[str, str | int | bool] = {}
    """What a line of its answer, a JSON object, has to hold."""


class KnownModel(_Entry, frozen=True, kw_only=True):
    id: str
    name: str = ""
    thinking: tuple[str, ...] = ()
    default: bool = False


class Models(_Entry, frozen=True, kw_only=True):
    """Which models there are."""

    source: ModelSource = "none"
    known: tuple[KnownModel, ...] = ()
    """With ``static``; with the others, what is said where the program does not tell."""
    args: tuple[str, ...] = ()
    """What the program is asked with."""
    reader: ListReader = ""
    """How its answer is written (with ``acp``: ``names`` where its option takes names and not ids)."""
    from_version: str = ""
    """The first version that answers."""
    any: bool = False
    """Whether other names may be good, too: then a model that is not listed is passed on all the same."""


class Thinking(_Entry, frozen=True, kw_only=True):
    """Thinking levels of all models that have no list of their own."""

    levels: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    """What the program is asked with for a help text that names the levels beside its option."""


class Provider(_Entry, frozen=True, kw_only=True):
    """One kind of agent CLI."""

    id: str
    """The provider's name on the wire and in settings."""
    name: str
    """What people call it."""
    executables: tuple[str, ...]
    """Program names, the preferred one first."""
    family: str
    """Protocol family that drives it (``agents.families``)."""
    ask_family: str = ""
    """Another one that does while the user wants to be asked for permission."""
    verified: tuple[str, ...] = ()
    """Versions that Ostler was tried with; none: nobody has run it yet."""
    min_version: str = ""
    """Versions below are refused; empty: any will do."""
    version_args: tuple[str, ...] = ("--version",)
    version_optional: bool = False
    """Whether it is usable although it tells no version."""
    check: Check = Check()
    places: tuple[str, ...] = ()
    """Directories of its own installer, looked at after PATH and before the common places."""
    install: str = ""
    """What to type to get it; empty where its maker has more than one way."""
    brief: Brief = Brief()
    skills: Skills = Skills()
    home: Home = Home()
    sign_in: SignIn = SignIn()
    models: Models = Models()
    thinking: Thinking = Thinking()
    drive: Drive = Drive()
    ask_drive: Drive | None = None
    """How ``ask_family`` drives it; None: as ``drive`` says."""

    def layout(self) -> Layout:
        """What is to be laid out for it, and where."""
        return Layout(
            way=self.brief.way,
            brief_file=self.brief.file,
            skills=self.skills.directory,
            home_skills=self.skills.in_home,
        )


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file is no provider."""

    file: str
    what: str
    line: int | None = None
    hint: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else self.file


class Registry:
    """All providers, in the order in which they are shown, and what is wrong with the user's files."""

    def __init__(self, providers: Iterable[Provider], mistakes: Iterable[Mistake] = ()) -> None:
        self.providers: tuple[Provider, ...] = tuple(providers)
        self.mistakes: tuple[Mistake, ...] = tuple(mistakes)
        self._by_id = {provider.id: provider for provider in self.providers}

    def __iter__(self) -> Iterator[Provider]:
        return iter(self.providers)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Registry)
            and self.providers == other.providers
            and self.mistakes == other.mistakes
        )

    __hash__ = None  # type: ignore[assignment]

    def get(self, provider_id: str) -> Provider | None:
        """The provider of that name, or None."""
        return self._by_id.get(provider_id)

    @property
    def ids(self) -> list[str]:
        return [provider.id for provider in self.providers]


@cache
def builtin() -> Registry:
    """The providers that come with Ostler (read once)."""
    from daemon_core.runtimes.provider_reading import decoded, parsed

    found = []
    for path in FILES.iterdir():
        if path.suffix == ".toml":
            found.append(decoded(parsed(path.read_text("utf-8"))))
    places = {name: number for number, name in enumerate(_FIRST)}
    found.sort(key=lambda provider: (places.get(provider.id, len(places)), provider.id))
    return Registry(found)


def load(user_directory: Path | None, families: Collection[str] | None = None) -> Registry:
    """The providers that come with Ostler and the user's own. Never raises.

    Args:
        user_directory: Where the user's files are; it need not be there.
        families: The protocol families that a user's provider may name; None: all that Ostler can drive.
    """
    if user_directory is None or not user_directory.is_dir():
        return builtin()
    from daemon_core.runtimes.provider_reading import read_directory

    if families is None:
        from daemon_core.agents.families import families as known

        families = known()
    providers, mistakes = read_directory(user_directory, builtin(), families)
    return Registry((*builtin(), *providers), mistakes) if providers or mistakes else builtin()


def provider(provider_id: str) -> Provider | None:
    """The provider of that name that comes with Ostler, or None."""
    return builtin().get(provider_id)
