"""Asks the update server what there is, in a process that ends (see ``update_child``).

Nothing that comes from the network is believed before that process has verified it. The process is bounded
in time: a server that answers a byte at a time is one that does not answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon_core.settings import installed
from daemon_core.updates.offers import Checked, ProblemError
from daemon_core.updates.update_child import ANSWER_LIMIT_BYTES

CHECK_LIMIT_S: Final = 90.0
READ_TIMEOUT_S: Final = 15.0
_LASTING: Final = frozenset({"untrusted", "trust_missing", "child_failed"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where updates come from and what is trusted.

    Attributes:
        metadata_url: Where the signed metadata is.
        targets_url: Where the files are.
        root: The root of trust, which the installer brought.
        metadata_dir: What was verified already; made if need be.
        other_hosts: Hosts besides that of ``targets_url`` that a download may be sent to.
    """

    metadata_url: str
    targets_url: str
    root: Path
    metadata_dir: Path
    other_hosts: tuple[str, ...] = ()


class Trust:
    """The questions.

    Args:
        environ: The daemon's environment: proxies and certificates are named there.
        limit_s: The longest a question may take.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        agent: str = "",
        limit_s: float = CHECK_LIMIT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._environ = dict(environ)
        self._agent = agent
        self._limit_s = limit_s
        self._read_timeout_s = read_timeout_s

    async def check(
        self,
        source: Source,
        *,
        platform: str,
        current: str,
        bucket: str,
        bad: Sequence[str],
        anyway: bool,
    ) -> Checked:
        """What there is for this machine.

        Args:
            current: The installed version; nothing older is ever offered.
            bucket: Names this installation in a staged roll-out.
            bad: Versions that failed here.
            anyway: The user asks: neither the roll-out nor an earlier failure counts.

        Raises:
            ProblemError: It is not known.
        """
        question = {
            "metadata_dir": str(source.metadata_dir),
            "metadata_url": source.metadata_url,
            "root": str(source.root),
            "platform": platform,
            "installed": current,
            "bucket": bucket,
            "bad": list(bad),
            "anyway": anyway,
            "timeout_s": self._read_timeout_s,
            "agent": self._agent,
        }
        answer = await self._ask(question)
        code = str(answer.get("code", ""))
        if code != "ok":
            params = answer.get("params")
            params = {str(name): value for name, value in params.items()} if isinstance(params, dict) else {}
            raise ProblemError(code or "child_failed", lasting=code in _LASTING, **params)
        try:
            return msgspec.convert(answer.get("checked"), Checked)
        except msgspec.ValidationError as error:
            raise ProblemError("untrusted", lasting=True, detail=str(error)) from error

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            child = await asyncio.create_subprocess_exec(
                *_command(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environ,
                limit=ANSWER_LIMIT_BYTES,
            )
        except OSError as error:
            raise ProblemError("child_failed", lasting=True, detail=error.strerror or str(error)) from error
        try:
            async with asyncio.timeout(self._limit_s):
                raw, said = await child.communicate(json.dumps(question).encode())
        except TimeoutError as error:
            raise ProblemError("slow", detail=f"no answer within {self._limit_s:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        try:
            answer = json.loads(raw)
        except ValueError as error:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            detail = f"it ended with exit code {child.returncode}: {last[:300]}"
            raise ProblemError("child_failed", detail=detail) from error
        return answer if isinstance(answer, dict) else {}


def _command() -> list[str]:
    if installed.FROZEN:
        return [installed.beside("ostler-helper"), "update"]
    return [sys.executable, "-P", str(Path(__file__).with_name("update_child.py"))]
