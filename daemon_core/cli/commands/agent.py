"""``ostler agent``: named configurations of agents."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.session import Session, quoted
from daemon_core.cli.words import EXIT_USAGE, CliError
from daemon_core.control.views import AgentAdd, AgentEdit, AgentSkill, AgentView

agent = LazyGroup(
    "agent",
    {
        "list": ("agent:list_", "All of them."),
        "show": ("agent:show_", "One with its instructions."),
        "add": ("agent:add", "Add one."),
        "edit": ("agent:edit", "Change one; what is not given stays."),
        "remove": ("agent:remove", "Remove one."),
    },
    help="Named configurations: instructions, model, environment and runtime under one name.",
)


@click.command("list", cls=Command)
@pass_session
def list_(session: Session) -> None:
    """All named agents."""
    found = session.call(list[AgentView], "GET", "/v1/agents")
    if session.json:
        session.document(found)
        return
    if not found:
        session.note("There are no named agents", "Add one with `ostler agent add NAME --runtime P`")
        return
    rows = (
        (entry.name, entry.runtime, entry.model or "-", show.one_line(entry.instructions, 200))
        for entry in found
    )
    click.echo(show.table(("NAME", "RUNTIME", "MODEL", "INSTRUCTIONS"), rows))


@click.command("show", cls=Command)
@click.argument("name")
@pass_session
def show_(session: Session, name: str) -> None:
    """One agent with its instructions. Of its environment only the names are shown."""
    _tell(session, session.call(AgentView, "GET", f"/v1/agents/{quoted(name)}"))


def _tell(session: Session, found: AgentView) -> None:
    if session.json:
        session.document(found)
        return
    click.echo(
        show.facts(
            [
                ("Agent", found.name),
                ("Runtime", found.runtime),
                ("Model", found.model),
                ("Thinking", found.thinking),
                ("Permissions", found.permissions),
                (
                    "After a limit",
                    _after_limit(found.resume_after_limit),
                ),
                ("Arguments", " ".join(found.args)),
                ("Environment", ", ".join(found.env_names)),
                ("MCP servers", ", ".join(found.mcp_servers)),
                ("Instructions", show.safe(found.instructions).strip()),
            ]
        )
    )


def _after_limit(goes_on: bool | None) -> str:
    return "" if goes_on is None else "goes on by itself" if goes_on else "waits for you"


def _options(command: Any) -> Any:
    """The options that ``add`` and ``edit`` share; None where one is not given."""
    for option in reversed(
        (
            click.option("--model", metavar="M", help="Empty: the runtime's own choice."),
            click.option("--thinking", metavar="LEVEL", help="Likewise."),
            click.option(
                "--permissions",
                type=click.Choice(["allow", "ask", "deny", ""]),
                help="Empty: as the settings say. None fences what its own shell does once it may run.",
            ),
            click.option(
                "--resume-after-limit/--wait-after-limit",
                default=None,
                help="Whether its tasks go on by themselves when a usage limit has reset.",
            ),
            click.option("--instructions", metavar="TEXT", help="@FILE reads a file, - standard input."),
            click.option(
                "--arg", "args", multiple=True, metavar="ARG", help="Argument at each start; repeatable."
            ),
            click.option(
                "--env", multiple=True, metavar="NAME=VALUE", help="Variable of its runs; repeatable."
            ),
            click.option("--mcp-config", metavar="FILE", help="JSON file with its MCP servers."),
            click.option(
                "--skill",
                "skills",
                metavar="DIR",
                multiple=True,
                help="A directory with SKILL.md; repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("name")
@click.option("--runtime", required=True, metavar="P", help="What it runs on, as `ostler runtimes` has it.")
@_options
@pass_session
def add(session: Session, /, name: str, runtime: str, **given: Any) -> None:
    """Add a named agent."""
    wanted = AgentAdd(name=name, runtime=runtime, **_fields(given))
    made = session.call(AgentView, "POST", "/v1/agents", wanted)
    if session.json:
        session.document(made)
    else:
        session.say(f"Added {made.name}", f"`ostler task add --agent {made.name} PROMPT` uses it")


@click.command(cls=Command)
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--runtime", metavar="P")
@_options
@pass_session
def edit(session: Session, /, name: str, new_name: str | None, runtime: str | None, **given: Any) -> None:
    """Change an agent. What is not given stays; --arg, --env and --mcp-config replace what was there."""
    fields = _fields({**given, "name": new_name, "runtime": runtime})
    if not fields:
        raise CliError("usage", "Nothing to change was given", "`ostler agent edit --help`", EXIT_USAGE)
    changed = session.call(AgentView, "PATCH", f"/v1/agents/{quoted(name)}", AgentEdit(**fields))
    if session.json:
        session.document(changed)
    else:
        session.say(f"Changed {changed.name}", "It holds from its next run on")


@click.command(cls=Command)
@click.argument("name")
@pass_session
def remove(session: Session, name: str) -> None:
    """Remove an agent. Conversations with it stay."""
    gone = session.call(AgentView, "DELETE", f"/v1/agents/{quoted(name)}")
    if session.json:
        session.document(gone)
    else:
        session.say(f"Removed {gone.name}")


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: given[name]
        for name in ("name", "runtime", "model", "thinking", "permissions", "resume_after_limit")
        if given.get(name) is not None
    }
    if given.get("instructions") is not None:
        fields["instructions"] = _text(given["instructions"])
    if given.get("args"):
        fields["args"] = list(given["args"])
    if given.get("env"):
        pairs = [pair.partition("=") for pair in given["env"]]
        wrong = next((name or "=" for name, sign, _ in pairs if not sign or not name), None)
        if wrong is not None:
            raise CliError(
                "usage", f"--env {wrong!r} is not NAME=VALUE", "Write --env NAME=VALUE", EXIT_USAGE
            )
        fields["env"] = {name: value for name, _, value in pairs}
    if given.get("mcp_config") is not None:
        fields["mcp_config"] = _mcp(given["mcp_config"])
    if given.get("skills"):
        fields["skills"] = [_skill(Path(path).expanduser()) for path in given["skills"]]
    return fields


def _text(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    if given.startswith("@"):
        return _read(given[1:])
    return given


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CliError(
            "invalid_input", f"{path} cannot be read: {what}", "Check the path", EXIT_USAGE
        ) from error


def _skill(folder: Path) -> AgentSkill:
    """A skill from a directory: ``SKILL.md`` and the other texts in it, hidden files apart."""
    content = _read(str(folder / "SKILL.md"))
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.as_posix() != "SKILL.md" and not _hidden(relative):
            files[relative.as_posix()] = _read(str(path))
    told = re.search(r"\A---\s*\n(?:.*\n)*?description:[ \t]*(.+)\n(?:.*\n)*?---", content[:8192])
    return AgentSkill(
        name=folder.resolve().name,
        content=content,
        description=told[1].strip().strip("'\"") if told else "",
        files=files,
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _mcp(path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_read(path), type=dict[str, Any])
    except ValueError as error:
        raise CliError(
            "invalid_input",
            f"{path} is not a JSON object: {error}",
            'It looks like {"mcpServers": {…}}',
            EXIT_USAGE,
        ) from error
