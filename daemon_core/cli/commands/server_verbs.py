"""``ostler issue|squad|workspace|project|autopilot|chat``: what a task can do at its server.

The commands are made from the table of ``protocol.verbs``. Long texts come from a file (``--content-file``,
``-`` for standard input), so that no shell changes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

import click
import msgspec

from daemon_core.cli import show
from daemon_core.cli.base import Command, Group, session_of
from daemon_core.cli.task_server import Answer, task_server
from daemon_core.cli.words import EXIT_USAGE, CliError
from daemon_core.protocol.verbs import Parameter, Verb, VerbError, request_of, rows_of, verbs_below

TEXT_LIMIT_BYTES: Final = 4 * 1024 * 1024
_CURSORS: Final = (("before", "x-multica-next-before"), ("before_id", "x-multica-next-before-id"))
_BLOCKS: Final = ("content", "description")
_CELL_CHARS: Final = 60
_LINE_CHARS: Final = 2000
_NAMES: Final = ("name", "title", "id", "url", "local_path")
_TELLING: Final = ("id", "name", "title", "filename", "resource_type", "url", "description")
_OTHER_NAMES: Final = {"role": "author", "created_at": "ts", "content": "text"}


def _group(word: str, help_text: str, **below: str) -> click.Group:
    group = Group(word, help=help_text)
    for name, line in below.items():
        inner = Group(name, help=line)
        for verb in verbs_below(word, name):
            inner.add_command(_command(verb))
        group.add_command(inner)
    for verb in verbs_below(word):
        if len(verb.name) == 2:
            group.add_command(_command(verb))
    return group


def _command(verb: Verb) -> click.Command:
    asked = [parameter for parameter in verb.parameters if not parameter.implied]
    params: list[click.Parameter] = []
    for parameter in asked:
        params += _params_of(parameter)

    def run(**given: Any) -> None:
        _run(verb, asked, given)

    return Command(verb.name[-1], callback=run, params=params, help=verb.help, short_help=verb.help)


def _params_of(parameter: Parameter) -> list[click.Parameter]:
    kind: click.ParamType[Any] = click.INT if parameter.kind == "integer" else click.STRING
    if parameter.choices:
        kind = click.Choice(parameter.choices)
    if parameter.positional:
        return [click.Argument([parameter.name], type=kind, metavar=parameter.name.upper())]
    option = "--" + parameter.name.replace("_", "-")
    if parameter.kind == "flag":
        return [click.Option([option, parameter.name], is_flag=True, help=parameter.help)]
    # A required long text may come from its file instead, so click cannot see that it is missing.
    made: list[click.Parameter] = [
        click.Option(
            [option, parameter.name],
            type=kind,
            multiple=parameter.kind == "list",
            required=parameter.required and not parameter.long,
            help=parameter.help,
        )
    ]
    if parameter.long:
        made.append(
            click.Option(
                [f"{option}-file", f"{parameter.name}_file"],
                metavar="FILE",
                help=f"A UTF-8 file with the {parameter.name}; - for standard input.",
            )
        )
    return made


def _run(verb: Verb, asked: Iterable[Parameter], given: dict[str, Any]) -> None:
    session = session_of(click.get_current_context())
    for parameter in asked:
        if parameter.long:
            source = given.pop(f"{parameter.name}_file", None)
            if source is not None and given.get(parameter.name):
                raise CliError(
                    "usage", f"Both --{parameter.name} and --{parameter.name}-file", "Give one", EXIT_USAGE
                )
            if source is not None:
                given[parameter.name] = read_text(source, parameter.name)
    server = task_server(session)
    try:
        request = request_of(verb, given, server.implied)
    except VerbError as error:
        hint = f"`ostler {' '.join(verb.name)} --help` shows how it is used"
        raise CliError("usage", f"{str(error)[:1].upper()}{str(error)[1:]}", hint, EXIT_USAGE) from error
    answer = server.ask(request)
    if session.json:
        session.document(answer.body if answer.body is not None else {})
    else:
        click.echo(shown(verb, answer))
    for option, header in _CURSORS:
        if value := answer.headers.get(header):
            session.note(f"There is more: --{option.replace('_', '-')} {value}")


def read_text(source: str, what: str) -> str:
    """A text from a file or from standard input (``-``). Raises ``CliError``."""
    try:
        if source == "-":
            data = sys.stdin.buffer.read(TEXT_LIMIT_BYTES + 1)
        else:
            with open(source, "rb") as stream:
                data = stream.read(TEXT_LIMIT_BYTES + 1)
        if len(data) > TEXT_LIMIT_BYTES:
            raise CliError("too_large", f"The {what} is larger than {TEXT_LIMIT_BYTES} bytes", "", EXIT_USAGE)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise CliError("usage", f"{source} cannot be read: {error.strerror}", "", EXIT_USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError("usage", f"{source} is not UTF-8", "Save it as UTF-8", EXIT_USAGE) from error


def shown(verb: Verb, answer: Answer) -> str:
    """An answer for people."""
    rows = rows_of(verb, answer.body) if verb.rows else None
    if rows is not None:
        if not rows:
            return "Nothing found."
        if "content" in verb.rows:
            return "\n\n".join(_block(verb.rows, row) for row in rows)
        head = [column.replace("_", " ") for column in verb.rows]
        return show.table(head, [[_cell(row.get(column)) for column in verb.rows] for row in rows])
    if isinstance(answer.body, dict) and answer.body:
        return _record(answer.body) or "Nothing is there."
    return "Done." if answer.body in (None, {}, []) else _cell(answer.body)


def _record(record: dict[str, Any]) -> str:
    """One object: what is short as facts, then what it consists of, then its texts."""
    plain = {name: each for name, each in record.items() if not isinstance(each, dict | list)}
    facts = [(name.replace("_", " "), _cell(each)) for name, each in plain.items() if name not in _BLOCKS]
    lines = [show.facts(facts)]
    for name, each in record.items():
        if isinstance(each, dict | list) and each:
            lines.append("\n".join([f"{name.replace('_', ' ')}:", *(f"  {line}" for line in _parts(each))]))
    lines += [show.safe(str(plain[name])) for name in _BLOCKS if plain.get(name)]
    return "\n\n".join(line for line in lines if line)


def _parts(value: dict[str, Any] | list[Any]) -> list[str]:
    """A line for each member: a note with its name, a file or a repository by what it is told from others."""
    if isinstance(value, dict):
        return [f"{show.one_line(name, _CELL_CHARS)}: {_said(each)}" for name, each in value.items()]
    return [_said(each) for each in value]


def _said(value: Any) -> str:
    """A value that may be anything, on one line and whole."""
    if isinstance(value, dict) and (told := [_cell(value[name]) for name in _TELLING if value.get(name)]):
        return "  ".join(told)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return show.one_line(text, _LINE_CHARS)


def _block(columns: tuple[str, ...], row: dict[str, Any]) -> str:
    head = " · ".join(cell for column in columns if column != "content" and (cell := _cell(_of(row, column))))
    return f"{head}\n{show.safe(str(_of(row, 'content') or ''))}".rstrip()


def _of(row: dict[str, Any], column: str) -> Any:
    """A member of a row; lines of a chat have names of their own, by the channel that they come from."""
    found = row.get(column)
    return row.get(_OTHER_NAMES[column]) if found is None and column in _OTHER_NAMES else found


def _cell(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = next((value[name] for name in _NAMES if value.get(name)), "")
    return show.one_line(str(value), _CELL_CHARS)


issue = _group(
    "issue",
    "Issues of the task's server, from inside a task.",
    comment="Comments of an issue.",
    metadata="Short notes on an issue that outlive a run.",
)
squad = _group("squad", "What a squad's leader records, from inside a task.")
workspace = _group("workspace", "The task's workspace, from inside a task.")
project = _group("project", "Projects of the task's server, from inside a task.")
autopilot = _group("autopilot", "Autopilots of the task's server, from inside a task.")
chat = _group("chat", "The chat that a task belongs to, from inside the task.")
