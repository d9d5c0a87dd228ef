"""The real opencode, gemini and qwen as their own stream families drive them: what differs between them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon_core.agents.families import families
from daemon_core.agents.family import Drive, LaunchRequest, Reader
from daemon_core.protocol import failures
from daemon_core.runtimes.providers import builtin
from tests.support import npm_clis
from tests.support.acp_clis import AGENTS, AcpCli
from tests.support.driving import Driven, drive
from tests.support.model_server import Fail, ModelServer, Step

RECORDINGS = Path(__file__).resolve().parent.parent / "agents" / "recordings" / "streams"
NAMES = ("opencode", "gemini", "qwen")

# One second is the least that both understand; gemini is told by its settings to try once.
_RETRY_AFTER = {"opencode": "1", "qwen": "1"}


def refusal(name: str, status: int) -> Fail:
    """An error that the CLI does not try for minutes to get around."""
    return Fail(status, retry_after=_RETRY_AFTER.get(name, "") if status in (429, 500) else "")


def environ_of(name: str, home: Path, url: str) -> dict[str, str]:
    """A whole environment, with few retries."""
    found = AGENTS[name].environ(home, url)
    if name == "qwen":
        settings = home / ".qwen" / "settings.json"
        content = json.loads(settings.read_text())
        content["model"] = {"generationConfig": {"maxRetries": 0}}
        settings.write_text(json.dumps(content))
    return found


@dataclass
class Machine:
    """A home, a work directory and run directories; ``run`` starts a CLI there as its family plans it."""

    root: Path
    cli: AcpCli
    model: ModelServer
    name: str
    runs: int = 0
    work_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        self.work_dir = self.root / "work"
        self.work_dir.mkdir()

    @property
    def drive(self) -> Drive:
        entry = builtin().get(self.cli.name)
        assert entry is not None
        return entry.drive

    def run(
        self,
        prompt: str,
        steps: list[Step],
        on_event: Callable[[Any, Reader, Any], None] = lambda *_: None,
        **request: Any,
    ) -> Driven:
        self.runs += 1
        run_dir = self.root / f"run-{self.runs}"
        run_dir.mkdir(mode=0o700)
        url = self.model.scenario(self.name, steps)
        entry = builtin().get(self.cli.name)
        assert entry is not None
        wanted = LaunchRequest(
            provider=self.cli.name,
            drive=entry.drive,
            executable=str(npm_clis.require(self.cli.name)),
            prompt=prompt,
            work_dir=str(self.work_dir),
            run_dir=str(run_dir),
            **{"model": self.cli.model, **request},
        )
        environ = environ_of(self.cli.name, self.root / "home", url)
        driven = drive(families()[entry.family], wanted, environ, on_event)
        if os.environ.get("OSTLER_RECORD"):
            self._record(driven)
        return driven

    def requests(self) -> list[dict[str, Any]]:
        return self.model.requests(self.name)

    def offered(self) -> set[str]:
        """Tools that the last request offers."""
        return self.model.offered(self.requests()[-1])

    def _record(self, driven: Driven) -> None:
        """Keep the output, without the places and long lists of this machine."""
        lines = []
        for line in driven.stdout.decode().splitlines():
            fields = json.loads(line)
            for key, value in fields.items():
                if isinstance(value, list) and key != "mcp_servers":
                    fields[key] = value[:3]
            text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            text = text.replace(str(self.work_dir), "/srv/task").replace(str(self.root), "/srv")
            lines.append(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text) + "\n")
        RECORDINGS.mkdir(parents=True, exist_ok=True)
        (RECORDINGS / f"{self.cli.name}-{self.name}-{self.runs}.jsonl").write_text("".join(lines))


REASONS = {
    400: failures.API_INVALID_REQUEST,
    401: failures.AGENT_AUTH,
    429: failures.AGENT_RATE_LIMIT,
}
