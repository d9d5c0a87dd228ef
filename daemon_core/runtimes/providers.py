"""The kinds of agent CLI that Ostler knows, as data.

A provider with a protocol family can be driven; one without is found and shown, with the reason, and not
offered to any server. Minimum versions and program names are the protocol's and the makers'.
"""

from __future__ import annotations

from typing import Final

import msgspec

COMMON_PLACES: Final = (
    "~/.local/bin",
    "~/bin",
    "~/.npm-global/bin",
    "~/.npm-packages/bin",
    "~/.volta/bin",
    "~/.bun/bin",
    "~/.yarn/bin",
    "~/.local/share/pnpm",
    "~/Library/pnpm",
    "~/.local/share/mise/shims",
    "~/.asdf/shims",
    "~/.cargo/bin",
    "~/go/bin",
    "~/.nvm/versions/node/*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/bin",
    "/bin",
)
"""Where installers and package managers put programs, looked at after PATH: a daemon that a desktop started
does not have the PATH of a terminal. ``*`` stands for any name, the newest version first."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of agent CLI."""

    id: str
    """The provider's name on the wire and in settings."""
    name: str
    """What people call it."""
    executables: tuple[str, ...]
    """Program names, the preferred one first."""
    min_version: str = ""
    """Versions below are refused; empty: any will do."""
    family: str = ""
    """Protocol family that drives it (``agents.families``); empty: Ostler cannot drive it yet."""
    version_args: tuple[str, ...] = ("--version",)
    version_optional: bool = False
    """Whether it is usable although it tells no version."""
    places: tuple[str, ...] = ()
    """Directories of its own installer, looked at after PATH and before the common places."""
    install_hint: str = ""
    """What to type to get it; empty where its maker has more than one way."""


def _npm(package: str) -> str:
    return f"npm install -g {package}"


PROVIDERS: Final[tuple[Provider, ...]] = (
    Provider(
        id="claude",
        name="Claude Code",
        executables=("claude",),
        min_version="2.0.0",
        family="claude-stream-json",
        places=("~/.claude/local", "~/.claude/local/node_modules/.bin"),
        install_hint=_npm("@anthropic-ai/claude-code"),
    ),
    Provider(
        id="shell",
        name="Shell",
        executables=("bash", "sh"),
        family="plain",
        version_optional=True,
        install_hint="Install bash with the system's package manager",
    ),
    Provider(
        id="codex",
        name="Codex",
        executables=("codex",),
        min_version="0.100.0",
        places=("/Applications/Codex.app/Contents/Resources",),
        install_hint=_npm("@openai/codex"),
    ),
    Provider(
        id="opencode",
        name="OpenCode",
        executables=("opencode",),
        places=("~/.opencode/bin",),
        install_hint=_npm("opencode-ai"),
    ),
    Provider(
        id="gemini",
        name="Gemini CLI",
        executables=("gemini",),
        install_hint=_npm("@google/gemini-cli"),
    ),
    Provider(
        id="qwen",
        name="Qwen Code",
        executables=("qwen",),
        min_version="0.20.0",
        install_hint=_npm("@qwen-code/qwen-code"),
    ),
    Provider(id="codebuddy", name="CodeBuddy", executables=("codebuddy",)),
    Provider(
        id="copilot",
        name="Copilot CLI",
        executables=("copilot",),
        min_version="1.0.0",
        install_hint=_npm("@github/copilot"),
    ),
    Provider(id="cursor", name="Cursor Agent", executables=("cursor-agent",)),
    Provider(id="antigravity", name="Antigravity", executables=("agy",)),
    Provider(id="deveco", name="DevEco", executables=("deveco",)),
    Provider(id="openclaw", name="OpenClaw", executables=("openclaw",)),
    Provider(id="pi", name="Pi", executables=("pi",)),
    Provider(id="omp", name="OMP", executables=("omp",)),
    Provider(id="hermes", name="Hermes", executables=("hermes",)),
    Provider(id="kimi", name="Kimi", executables=("kimi",)),
    Provider(id="kiro", name="Kiro", executables=("kiro-cli",)),
    Provider(id="reasonix", name="Reasonix", executables=("reasonix",)),
    Provider(id="qoder", name="Qoder", executables=("qodercli",)),
    Provider(id="qoderclicn", name="Qoder CN", executables=("qoderclicn",)),
    Provider(id="traecli", name="Trae", executables=("traecli",)),
    Provider(id="grok", name="Grok", executables=("grok",), min_version="0.2.89"),
    Provider(id="qwenpaw", name="QwenPaw", executables=("qwenpaw",)),
    Provider(id="mcode", name="MCode", executables=("mcode",), min_version="0.1.2"),
    Provider(id="dim", name="Dim", executables=("dim",), min_version="0.3.10"),
    Provider(id="dsh", name="DSH", executables=("dsh",)),
)


def provider(provider_id: str) -> Provider | None:
    """The provider of that name, or None."""
    return next((entry for entry in PROVIDERS if entry.id == provider_id), None)
