"""What the real CLIs that speak ACP need in order to talk to a scripted model, and what differs in tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon_core.protocol.wire import Usage
from tests.support import model_chat, model_gemini
from tests.support.model_server import CallTool, ModelServer


@dataclass(frozen=True, kw_only=True)
class AcpCli:
    """One CLI.

    Attributes:
        name: Of its provider, and of its pinned package.
        configure: Writes its configuration into a home for a model's address; gives what its environment
            needs.
        shell_tool: Name of its shell tool; ``shell_more`` are further arguments of it.
        mcp_tool_form: How the tool of an MCP server is called.
        model: Asked for in each run, so that nothing chooses one; ``other_model`` is another one, and
            ``sent_model`` what the model server is asked for then.
        one_tool_usage: Tokens of a run with one tool call: input, output, read from the cache.
    """

    name: str
    server: Callable[[], ModelServer]
    configure: Callable[[Path, str], dict[str, str]]
    said_texts: Callable[[dict[str, Any]], list[str]]
    shell_tool: str
    shell_more: dict[str, Any]
    mcp_tool_form: str
    model: str = ""
    other_model: str
    sent_model: str
    one_tool_usage: tuple[int, int, int]
    unknown_session: str = "00000000-0000-4000-8000-000000000000"

    def environ(self, home: Path, url: str) -> dict[str, str]:
        """A whole environment: a home of its own, the scripted model, nothing else outside."""
        home.mkdir(parents=True, exist_ok=True)
        fixed = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}
        return {**fixed, **self.configure(home, url)}

    def shell(self, command: str, text: str = "") -> CallTool:
        """The model's wish to run a command."""
        return CallTool(self.shell_tool, {"command": command, **self.shell_more}, text=text)

    def mcp_tool(self, server: str, tool: str) -> str:
        return self.mcp_tool_form.format(server=server, tool=tool)

    def said(self, body: dict[str, Any]) -> str:
        """What users have said in a request to the model."""
        return "\n".join(self.said_texts(body))

    def counts(self, usage: Usage) -> tuple[int, int, int]:
        return usage.input_tokens, usage.output_tokens, usage.cache_read_tokens


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _opencode(home: Path, url: str) -> dict[str, str]:
    limits = {"context": 128000, "output": 8000}
    models = {
        "stub-model": {"name": "Stub", "tool_call": True, "reasoning": True, "limit": limits},
        "other": {"name": "Other", "tool_call": True, "limit": limits},
    }
    options = {"baseURL": f"{url}/v1", "apiKey": "k"}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "Stub", "options": options, "models": models}
    _write_json(
        home / ".config" / "opencode" / "opencode.json",
        {
            "autoupdate": False,
            "share": "disabled",
            "model": "stub/stub-model",
            "provider": {"stub": provider},
        },
    )
    return {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}


def _gemini(home: Path, url: str) -> dict[str, str]:
    _write_json(
        home / ".gemini" / "settings.json",
        {
            "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
            "general": {"maxAttempts": 1},
            "privacy": {"usageStatisticsEnabled": False},
        },
    )
    return {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": url}


def _qwen(home: Path, url: str) -> dict[str, str]:
    _write_json(
        home / ".qwen" / "settings.json",
        {
            "security": {"auth": {"selectedType": "openai"}},
            "privacy": {"usageStatisticsEnabled": False},
            "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
        },
    )
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_MODEL": "stub-model"}


AGENTS: dict[str, AcpCli] = {
    cli.name: cli
    for cli in (
        AcpCli(
            name="opencode",
            server=model_chat.ChatServer,
            configure=_opencode,
            said_texts=model_chat.user_texts,
            shell_tool="bash",
            shell_more={"description": "runs it"},
            mcp_tool_form="{server}_{tool}",
            other_model="stub/other",
            sent_model="other",
            # The last of its two requests only: it tells no more.
            one_tool_usage=(60, 12, 40),
            unknown_session="ses_00000000000000000000000000",
        ),
        AcpCli(
            name="gemini",
            server=model_gemini.GeminiServer,
            configure=_gemini,
            said_texts=model_gemini.user_texts,
            shell_tool="run_shell_command",
            shell_more={},
            mcp_tool_form="mcp_{server}_{tool}",
            model="gemini-2.5-flash",
            other_model="gemini-2.5-pro",
            sent_model="gemini-2.5-pro",
            # It does not tell what came from the cache, nor what was thought.
            one_tool_usage=(200, 24, 0),
        ),
        AcpCli(
            name="qwen",
            server=model_chat.ChatServer,
            configure=_qwen,
            said_texts=model_chat.user_texts,
            shell_tool="run_shell_command",
            shell_more={"is_background": False},
            mcp_tool_form="mcp__{server}__{tool}",
            other_model="stub-model",
            sent_model="stub-model",
            one_tool_usage=(120, 24, 80),
        ),
    )
}
