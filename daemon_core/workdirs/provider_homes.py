"""A provider's home for one task: the user's sign-in and sessions, but settings and skills of its own.

``codex_home`` says what such a home holds (pure but for looking at what the user has), ``write_home`` makes
it so. It is for the environment root of a task (never the user's directory), may be done again and again, and
leaves alone what the provider itself has written there.

Codex (its variable ``CODEX_HOME``), as the protocol has it:

- links to the user's ``auth.json`` and ``sessions``: a token that is renewed in a task is renewed for the
  user, and a session can be resumed from another task's home; what the user says to every agent, the rules
  for commands and the plugin cache are linked, too;
- copies of ``config.json``, ``config.toml`` and ``instructions.md``. In the copy of ``config.toml`` the
  user's entries for single skills are left out (their paths are of another home), the sandbox lets it write
  in the work directory and use the network (on macOS, whose sandbox cannot do that, there is none), and both
  several agents at once and memories are off: a task is one agent's, and what it learns is not for other
  tasks; so are its copies of the shell's environment, which would hold the run's secrets. The task's MCP
  servers are in it, in place of the user's where they are managed;
- that copy can hold secrets, so it is a file of the run (``spec.…``, gone with it), and the home links to it;
- skills of the agent, and beside them links to the user's own; where names are alike, the agent's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.protocol.wire import Skill
from daemon_core.workdirs import skills as skill_files
from daemon_core.workdirs.manifest import Plan

CODEX_FOLDER: Final = "codex-home"
_COPIED: Final = ("config.json", "instructions.md")
_LINKED: Final = (
    "auth.json",
    ".credentials.json",
    "sessions",
    "AGENTS.md",
    "AGENTS.override.md",
    "rules",
    "plugins/cache",
)
_CONFIG: Final = "config.toml"
CONFIG_FILE: Final = "spec.codex.toml"
"""The settings, in the run's directory."""
_SERVER_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
# What a server's entry may have beside what every program knows, passed on as it is.
_SERVER_MORE: Final = (
    "cwd",
    "env_vars",
    "env_http_headers",
    "bearer_token_env_var",
    "startup_timeout_sec",
    "tool_timeout_sec",
    "enabled_tools",
    "disabled_tools",
)


class HomePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a home holds. Paths are relative to ``root``."""

    root: Path
    links: dict[str, Path] = {}
    """Path in the home → what it leads to."""
    files: dict[str, bytes] = {}
    owned: tuple[str, ...] = ()
    """Folders that hold nothing but what the plan says, apart from what is hidden in them: that is the
    program's own (Codex unpacks skills that come with it), and it would only make it again."""
    env: dict[str, str] = {}
    """For the run's environment."""
    private_dir: Path | None = None
    private: dict[str, tuple[str, bytes]] = {}
    """Path in the home → name and content of a file of the run's directory, which is linked to."""


class McpServers(msgspec.Struct, frozen=True, kw_only=True):
    """The MCP servers of a run, in the form that ``mcpServers`` has everywhere."""

    managed: dict[str, object] | None = None
    """They take the place of the user's own; None: those apply."""
    added: dict[str, object] = {}


def user_codex_home(environ: Mapping[str, str]) -> Path:
    """Where the user's own Codex keeps its things."""
    named = environ.get("CODEX_HOME", "").strip()
    return Path(named) if named else Path(environ.get("HOME") or os.path.expanduser("~")) / ".codex"


def codex_home(
    env_root: Path,
    user_home: Path,
    skills: Sequence[Skill] = (),
    *,
    run_dir: Path | None = None,
    servers: McpServers | None = None,
    writable: Sequence[Path] = (),
    unwanted: Collection[str] = (),
    platform: str = sys.platform,
) -> HomePlan:
    """The home of a Codex run below ``env_root``. Raises ``OSError`` if the user's settings cannot be
    read.

    Args:
        run_dir: Where what may be secret goes.
        servers: The run's MCP servers; None: the user's.
        writable: What a sandbox lets it write to beside its work directory.
        unwanted: Skills of the user's own, by name, that the run is not to have.
    """
    root = env_root / CODEX_FOLDER
    files: dict[str, bytes] = {}
    for name in _COPIED:
        with contextlib.suppress(FileNotFoundError):
            files[name] = (user_home / name).read_bytes()
    try:
        config = (user_home / _CONFIG).read_bytes()
    except FileNotFoundError:
        config = b""
    config = codex_config(config, platform, servers=servers, writable=writable)
    private: dict[str, tuple[str, bytes]] = {}
    if run_dir is not None:
        private[_CONFIG] = (CONFIG_FILE, config)
    else:
        files[_CONFIG] = config
    links = {name: user_home / name for name in _LINKED if (user_home / name).exists()}
    # Planned in a place that is not there, so that what an earlier task left decides no name.
    spare = Plan(root / ".none")
    skill_files.place(spare, "skills", skills)
    files.update(spare.contents)
    taken = {path.split("/")[1] for path in spare.contents}
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(user_home / "skills"), key=lambda entry: entry.name):
            if entry.is_dir() and entry.name not in taken and entry.name not in unwanted:
                links[f"skills/{entry.name}"] = Path(entry.path)
    return HomePlan(
        root=root,
        links=links,
        files=files,
        owned=("skills",),
        env={"CODEX_HOME": str(root)},
        private_dir=run_dir,
        private=private,
    )


def codex_config(
    content: bytes, platform: str, *, servers: McpServers | None = None, writable: Sequence[Path] = ()
) -> bytes:
    """The user's ``config.toml`` as a task has it. One that is not valid stays as it is: Codex says why."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(content)
        skills = document.get("skills")
        if isinstance(skills, dict):
            skills.pop("config", None)
        if platform == "darwin":
            document["sandbox_mode"] = "danger-full-access"
        else:
            document["sandbox_mode"] = "workspace-write"
            sandbox = _table(document, "sandbox_workspace_write")
            sandbox["network_access"] = True
            if writable:
                roots = sandbox.get("writable_roots")
                kept = [root for root in roots if isinstance(root, str)] if isinstance(roots, list) else []
                sandbox["writable_roots"] = [*kept, *map(str, writable)]
        features = _table(document, "features")
        features["multi_agent"] = False
        features["memories"] = False
        # A copy of the environment, with its secrets, that a killed program leaves behind.
        features["shell_snapshot"] = False
        if servers is not None:
            _give_servers(document, servers)
        return tomlkit.dumps(document).encode()
    except (TOMLKitError, UnicodeDecodeError, TypeError, ValueError):
        return content


def codex_server(entry: object) -> dict[str, object] | None:
    """An MCP server's entry as Codex has it; None for one that it cannot have (an old event stream, say)."""
    if not isinstance(entry, dict):
        return None
    made: dict[str, object] = {}
    if isinstance(entry.get("command"), str):
        made["command"] = entry["command"]
        if isinstance(entry.get("args"), list):
            made["args"] = [str(arg) for arg in entry["args"]]
        if isinstance(entry.get("env"), dict):
            made["env"] = {str(name): str(value) for name, value in entry["env"].items()}
    elif isinstance(entry.get("url"), str) and entry.get("type") != "sse":
        made["url"] = entry["url"]
        headers = entry.get("headers", entry.get("http_headers"))
        if isinstance(headers, dict):
            made["http_headers"] = {str(name): str(value) for name, value in headers.items()}
    else:
        return None
    made.update({name: entry[name] for name in _SERVER_MORE if entry.get(name) is not None})
    return made


def _give_servers(document: dict[str, object], servers: McpServers) -> None:
    if servers.managed is not None:
        document.pop("mcp_servers", None)
    for name, entry in {**(servers.managed or {}), **servers.added}.items():
        made = codex_server(entry)
        if made is not None:
            _table(document, "mcp_servers")[_SERVER_NAME.sub("_", name)] = made


def write_home(plan: HomePlan) -> None:
    """Bring a home to what its plan says (in a thread). Raises ``OSError``."""
    plan.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in plan.owned:
        _clear(plan.root / name)
    for name, target in plan.links.items():
        _link(plan.root / name, target)
    for name, content in plan.files.items():
        path = plan.root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        temporary = path.with_name(f".{path.name}.new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    for name, (file, content) in plan.private.items():
        assert plan.private_dir is not None
        fd = os.open(plan.private_dir / file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)
        path = plan.root / name
        # Also where the program has put a file in place of our link: it holds what was of an earlier run.
        _remove(path)
        _link(path, plan.private_dir / file)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink():
        if os.readlink(path) == str(target):
            return
        path.unlink()
    elif path.exists():
        # What a provider made in place of our link (a renewed sign-in, say) is the newer one.
        return
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:  # no right to make links, as on Windows without its developer mode
        if target.is_dir():
            shutil.copytree(target, path)
        else:
            shutil.copy2(target, path)


def _clear(folder: Path) -> None:
    """Take out of a folder what is not the program's own; anything else of its name goes as a whole."""
    if folder.is_symlink() or not folder.is_dir():
        _remove(folder)
        return
    for path in folder.iterdir():
        if path.is_symlink() or not path.name.startswith("."):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _table(document: object, name: str) -> dict[str, object]:
    """A table of a document, made if it is not there (or no table)."""
    import tomlkit

    assert isinstance(document, dict)
    found = document.get(name)
    if not isinstance(found, dict):
        document[name] = tomlkit.table()
    made: dict[str, object] = document[name]
    return made
