"""The table of agents in the README, made from the registry.

``python -m daemon_core.runtimes.provider_table`` prints it; with the README's path it is put there between
its marks. A test holds the two together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from daemon_core.agents.families import families
from daemon_core.agents.family import Drive, LaunchError, LaunchRequest
from daemon_core.runtimes.providers import Provider, builtin

BEGIN: Final = "<!-- agents: made by python -m daemon_core.runtimes.provider_table README.md -->"
END: Final = "<!-- agents end -->"

_NONE: Final = "\N{EN DASH}"
_HEADINGS: Final = (
    "agent",
    "driven by",
    "tried with",
    "resume",
    "cancel",
    "usage",
    "thinking level",
    "permissions",
    "MCP servers",
    "survives the daemon",
)
# What a family can, whoever is behind it.
_BY_PROTOCOL: Final = frozenset({"claude-stream-json", "codex-app-server", "acp", "dsh"})
_USAGE: Final = {
    "claude-stream-json": "per model",
    "codex-app-server": "per model",
    "gemini-stream-json": "per model",
    "qwen-stream-json": "per model",
    "acp": "if it tells",
    "plain": _NONE,
    "plain-text": _NONE,
}


def table(providers: Iterable[Provider]) -> str:
    """The table as Markdown, with a line that explains it."""
    rows = [_row(provider) for provider in providers]
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"


def replaced(text: str, made: str) -> str | None:
    """A document with the table between its marks; None if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{made}{end}{after}" if begin and end else None


def _row(provider: Provider) -> tuple[str, ...]:
    drives = [(provider.family, provider.drive)]
    if provider.ask_family:
        drives.append((provider.ask_family, provider.ask_drive or provider.drive))
    known = [(family, drive) for family, drive in drives if family in families()]
    program = f"`{provider.executables[0]}`" + (f" ≥ {provider.min_version}" if provider.min_version else "")
    driven = " and ".join(family for family, _ in drives)
    return (
        f"{provider.name} ({program})",
        driven if known else f"{driven} (not yet)",
        ", ".join(provider.verified) or "nobody has run it",
        "yes" if provider.drive.resume else _NONE,
        "by protocol" if provider.family in _BY_PROTOCOL else "by signal",
        _USAGE.get(provider.family, "in total"),
        "yes" if provider.drive.thinking else _NONE,
        ", ".join(_permissions(provider, known)) or _NONE,
        _servers(provider, known),
        "yes" if known else _NONE,
    )


def _permissions(provider: Provider, drives: Sequence[tuple[str, Drive]]) -> list[str]:
    """The policies under which it can be started at all: its plan says so."""
    if provider.version_optional and provider.brief.way == "none":
        return []  # a shell does what it is told
    found = []
    for mode in ("allow", "ask", "deny"):
        for family, drive in drives:
            try:
                families()[family].plan(_request(provider, drive, mode))
            except LaunchError:
                continue
            found.append(mode)
            break
    return found


def _servers(provider: Provider, drives: Iterable[tuple[str, Drive]]) -> str:
    """Whether it takes MCP servers from its caller: its plan warns if it does not."""
    taken = []
    for family, drive in drives:
        mode = "allow" if drive is provider.drive else "ask"
        plan = families()[family].plan(_request(provider, drive, mode))
        taken.append(bool(drive.mcp) and not any("MCP" in warning for warning in plan.warnings))
    if provider.drive.options.get("mcp_form") == "cursor":
        return "where the project has no file of its own"
    if provider.drive.mcp == "file":
        return "Ostler's own, in its own directories; others while asking"
    if taken[:1] == [True]:
        return "yes"
    return "only while asking" if any(taken) else _NONE


def _request(provider: Provider, drive: Drive, mode: str) -> LaunchRequest:
    return LaunchRequest(
        provider=provider.id,
        drive=drive,
        executable="/bin/true",
        prompt="x",
        work_dir="/",
        run_dir="/",
        mcp_servers={"one": {"command": "true"}},
        permission_mode=mode,
    )


def main() -> None:
    made = table(builtin())
    if len(sys.argv) == 1:
        sys.stdout.write(made)
        return
    path = Path(sys.argv[1])
    new = replaced(path.read_text("utf-8"), made)
    if new is None:
        sys.exit(f"{path} has no marks for the table")
    path.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
