"""``ostler config``: every setting, shown and changed. A running daemon is told of each change."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.words import EXIT_REFUSED, EXIT_USAGE, CliError, refusal
from daemon_core.settings import edit as editing
from daemon_core.settings import file, values
from daemon_core.settings.errors import SettingsError

config = LazyGroup(
    "config",
    {
        "list": ("config:list_", "Every setting with its value."),
        "get": ("config:get", "The value of one."),
        "set": ("config:set_", "Change one."),
        "unset": ("config:unset", "Go back to the default of one."),
        "edit": ("config:edit", "Open the file in your editor."),
        "path": ("config:path", "Where the file is."),
    },
    help="Show and change settings. Environment variables such as OSTLER_DAEMON_SLOTS come before the file.",
)


@click.command("list", cls=Command)
@pass_session
def list_(session: Session) -> None:
    """Every setting with the value in force, and what it does."""
    rows = _rows(session)
    if session.json:
        session.document(rows)
        return
    section = ""
    for row in rows:
        here = row["key"].rpartition(".")[0]
        if here != section:
            section = here
            click.echo(f"\n{section}" if row is not rows[0] else section)
        source = "" if row["source"] == "default" else f"  ({row['source']})"
        click.echo(f"  {row['key'].rpartition('.')[2]} = {_shown(row['value'])}{source}")
        click.echo(f"      {row['what']}" + (f" {row['why']}." if row["why"] else ""))


def _rows(session: Session) -> list[dict[str, Any]]:
    path = session.directories.config_file
    settings = file.load(path, os.environ, unknown=_leave(session))
    from_file = file.load(path, {}, unknown=_leave())
    overridden = {name for name, _, _ in file.overrides(os.environ)}
    rows = []
    for entry in file.entries():
        names = [entry.name]
        if "<provider>" in entry.name:
            names = [entry.name.replace("<provider>", provider) for provider in sorted(settings.agents)]
        for name in names:
            default = values.to_toml(entry.key, entry.default)
            source = "default"
            if name in overridden:
                source = file.override_name(name)
            elif file.value_of(from_file, name) != default:
                source = "file"
            rows.append(
                {
                    "key": name,
                    "value": file.value_of(settings, name),
                    "default": default,
                    "source": source,
                    "what": entry.key.what,
                    "why": entry.key.why,
                    "live": entry.key.live,
                }
            )
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(value) or "(none)"
    if isinstance(value, dict):
        return ", ".join(f"{name}={entry}" for name, entry in value.items()) or "(none)"
    return str(value) if value != "" else "(empty)"


@click.command(cls=Command)
@click.argument("key")
@pass_session
def get(session: Session, key: str) -> None:
    """The value of one setting that is in force."""
    file.find(key)
    value = _in_force(session, key)
    if session.json:
        session.document({"key": key, "value": value})
    else:
        click.echo(_shown(value) if isinstance(value, bool | list | dict) else value)


@click.command("set", cls=Command)
@click.argument("key")
@click.argument("value", nargs=-1, required=True)
@pass_session
def set_(session: Session, key: str, value: tuple[str, ...]) -> None:
    """Change one setting. Lists are given as words, tables as name=value,name=value."""
    import shlex

    _not_from_run(session)
    entry = file.find(key)
    text = value[0]
    if len(value) > 1:
        if entry.key.kind != "words":
            raise CliError("usage", f"{key} takes one value, not {len(value)}", "Quote it", EXIT_USAGE)
        text = shlex.join(value)
    session.directories.ensure()
    editing.set_value(session.directories.config_file, key, text, unknown=_leave(session))
    _changed(session, key, "set")


@click.command(cls=Command)
@click.argument("key")
@pass_session
def unset(session: Session, key: str) -> None:
    """Go back to the default of one setting."""
    _not_from_run(session)
    session.directories.ensure()
    if editing.unset_value(session.directories.config_file, key, _leave(session)):
        _changed(session, key, "unset")
    elif session.json:
        session.document(
            {"key": key, "value": _in_force(session, key), "applied": False, "needs_restart": False}
        )
    else:
        session.say(f"{key} is not set in the file")


@click.command(cls=Command)
@pass_session
def edit(session: Session) -> None:
    """Open the settings in $VISUAL or $EDITOR; what is not valid is not taken over."""
    _not_from_run(session)
    session.directories.ensure()
    target = session.directories.config_file
    try:
        before = target.read_text("utf-8")
    except FileNotFoundError:
        before = editing.template()
    draft = before
    while True:
        edited = click.edit(draft, extension=".toml", require_save=False)
        if edited is None or edited == before:
            session.say("Nothing was changed")
            return
        try:
            editing.replace_text(target, edited)
        except SettingsError as error:
            draft = edited
            session.note(f"Line {error.line}: {error.what}" if error.line else error.what, error.hint)
            if sys.stdin.isatty() and click.confirm("Edit again?", default=True, err=True):
                continue
            kept = target.with_name("config.toml.rejected")
            kept.write_text(edited, "utf-8")
            raise CliError(
                "settings_invalid", "The settings were not changed", f"Your text is in {kept}", EXIT_USAGE
            ) from error
        _changed(session, "", "edited")
        return


@click.command(cls=Command)
@pass_session
def path(session: Session) -> None:
    """Where the settings file is."""
    if session.json:
        session.document({"path": str(session.directories.config_file)})
    else:
        click.echo(session.directories.config_file)


def _not_from_run(session: Session) -> None:
    """A courtesy, not a fence: whoever can write the file can change it."""
    if session.inside_run:
        words = refusal("refused_from_run", {})
        raise CliError("refused_from_run", words.message, words.hint, EXIT_REFUSED)


def _leave(session: Session | None = None) -> file.Unknown:
    """What stands in the file and is no setting stays as it is, as with a daemon that starts: a newer version
    that was taken back may have left it. ``session``: each is said once."""
    told: set[str] = set()

    def leave(mistake: SettingsError) -> bool:
        if session is not None and mistake.key not in told:
            told.add(mistake.key)
            place = f"{mistake.file}:{mistake.line}: " if mistake.line is not None else ""
            session.note(f"{place}{mistake.what}, so it is left out", mistake.hint)
        return True

    return leave


def _in_force(session: Session, key: str) -> Any:
    return file.value_of(file.load(session.directories.config_file, os.environ, unknown=_leave()), key)


def _changed(session: Session, key: str, how: str) -> None:
    """Tell the daemon, if there is one, and the user what holds now."""
    from daemon_core.control.client import DaemonUnreachableError
    from daemon_core.control.views import ReloadAnswer

    applied = False
    needs_restart: list[str] = []
    try:
        answer = session.client.call(ReloadAnswer, "POST", "/v1/settings/reload")
        applied, needs_restart = True, answer.needs_restart
    except DaemonUnreachableError as error:
        if error.why != "absent":
            session.note("The daemon was not told of the change", "It takes it over when it starts again")
    restart = bool(needs_restart) and (not key or key in needs_restart)
    if session.json:
        value = _in_force(session, key) if key else None
        session.document({"key": key, "value": value, "applied": applied, "needs_restart": restart})
        return
    told = f"{key} = {_shown(_in_force(session, key))}" if key else f"The settings were {how}"
    session.say(show.safe(told), "`ostler daemon restart` brings it into force" if restart else "")
    if key and os.environ.get(file.override_name(key)):
        session.note(f"{file.override_name(key)} is set in the environment and comes before the file")
