"""Which models and thinking levels an agent has, and whether what a user chose is among them.

Rules:

- The program is asked where it can tell (a command, or the beginning of a conversation by ACP), within
  ``LIST_LIMIT_S``, in an empty directory, once for all who ask at the same time. An answer is good for
  ``FRESH_S``; for checking a choice an older one of the same program will do (``KNOWN_S``), so that the
  start of a task waits for nobody.
- Nothing here makes a task fail: a choice that the agent is known not to have is left out, with a warning;
  where that is not known, it is passed on.
- Neither a sign-in nor a request to a model is ever begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from daemon_core.agents.words import Words
from daemon_core.runtimes import model_readers, probes
from daemon_core.runtimes.discovery import FoundAgent, parse_version, probe_env
from daemon_core.runtimes.model_readers import Listed, ModelInfo
from daemon_core.runtimes.probes import Answer, Question
from daemon_core.runtimes.providers import Provider
from daemon_core.settings.atomic import write_private

__all__ = ["Choice", "ModelCatalog", "ModelInfo", "ModelList", "wire_models"]

log = logging.getLogger(__name__)

LIST_LIMIT_S: Final = 20.0
CHOOSE_LIMIT_S: Final = 10.0
FRESH_S: Final = 60.0
KNOWN_S: Final = 24 * 3600.0
OUTPUT_LIMIT_BYTES: Final = 16 << 20
ERROR_LIMIT_CHARS: Final = 300


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The models of an agent."""

    models: tuple[ModelInfo, ...] = ()
    source: str = "none"
    """``static``, ``command``, ``acp`` (who told), or ``none``: there is nobody to tell."""
    error: str = ""
    """Why the agent could not be asked; then what Ostler knows by itself is listed."""
    open: bool = True
    """Whether models that are not listed may be good, too."""
    levels_told: bool = False
    """Whether a model without thinking levels has none; else that is not known."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What is passed on of what a user chose."""

    model: str = ""
    thinking_level: str = ""
    warnings: tuple[str, ...] = ()


class _Known(msgspec.Struct, frozen=True):
    at: float
    """Wall clock, s."""
    found: ModelList


class _Cache(msgspec.Struct):
    version: int = 1
    entries: dict[str, _Known] = {}


class ModelCatalog:
    """Asks agents for their models and remembers the answers. All methods belong to the event loop.

    Args:
        cache_path: Where answers outlive the daemon; None: nowhere.
    """

    def __init__(self, cache_path: Path | None) -> None:
        self._cache_path = cache_path
        self._entries: dict[str, _Known] | None = None
        self._locks: dict[str, asyncio.Lock] = {}

    async def list_models(
        self,
        provider: Provider,
        agent: FoundAgent,
        environ: Mapping[str, str],
        *,
        refresh: bool = False,
        limit_s: float = LIST_LIMIT_S,
    ) -> ModelList:
        """The models of an agent. Never raises but for cancellation; ``error`` says what went wrong.

        Args:
            environ: What a run of the agent would be given.
            refresh: Ask again, whatever is known.
        """
        return await self._ask(provider, agent, environ, 0.0 if refresh else FRESH_S, limit_s)

    async def choose(
        self, provider: Provider, agent: FoundAgent, environ: Mapping[str, str], model: str, level: str
    ) -> Choice:
        """What of a choice is passed on. Never raises but for cancellation."""
        if not model and not level:
            return Choice()
        warnings = []
        if model and not provider.drive.model:
            text = f"{provider.name} cannot be told which model to use: {model} is left out"
            warnings.append(Words(text, "model_not_chosen", agent=provider.name, model=model))
            model = ""
        if level and not provider.drive.thinking:
            text = f"{provider.name} has no thinking levels: {level} is left out"
            warnings.append(Words(text, "no_thinking_levels", agent=provider.name, level=level))
            level = ""
        # Nothing to check: the program need not be asked.
        if not level and (not model or provider.models.any or provider.models.source == "none"):
            return Choice(model=model, warnings=tuple(warnings))
        found = await self._ask(provider, agent, environ, KNOWN_S, CHOOSE_LIMIT_S)
        known = {info.id: info for info in found.models}
        if model and known and not found.open and not found.error and model not in known:
            text = f"{provider.name} has no model {model} here: it uses its default"
            warnings.append(Words(text, "model_unknown", agent=provider.name, model=model))
            model = ""
        chosen = known.get(model) or (None if model else _default_of(found.models))
        levels = _levels_of(model, chosen, found, provider)
        if level and levels is not None and level not in levels:
            has = f"it has {', '.join(levels)}" if levels else "it has none"
            of = chosen.id if chosen is not None else provider.name
            text = f"{of} has no thinking level {level} ({has}): it is left out"
            listed = ", ".join(levels) or "-"
            warnings.append(Words(text, "thinking_level_unknown", model=of, level=level, levels=listed))
            level = ""
        return Choice(model=model, thinking_level=level, warnings=tuple(warnings))

    # --- inside ----------------------------------------------------------------------------------

    async def _ask(
        self,
        provider: Provider,
        agent: FoundAgent,
        environ: Mapping[str, str],
        age_s: float,
        limit_s: float,
    ) -> ModelList:
        key = await asyncio.to_thread(_key, provider, agent)
        # One question at a time for each: who comes meanwhile takes its answer.
        asked_at = time.time()
        async with self._locks.setdefault(key, asyncio.Lock()):
            if self._entries is None:
                self._entries = await asyncio.to_thread(_read, self._cache_path)
            entry = self._entries.get(key)
            if entry is not None and (entry.at >= asked_at or 0 <= time.time() - entry.at < age_s):
                return entry.found
            found = await _in_thread(provider, agent, environ, limit_s)
            if not found.error:
                self._entries = {
                    name: each for name, each in self._entries.items() if 0 <= time.time() - each.at < KNOWN_S
                } | {key: _Known(time.time(), found)}
                if self._cache_path is not None:
                    await asyncio.to_thread(_write, self._cache_path, _Cache(entries=self._entries))
            return found


def _default_of(models: Sequence[ModelInfo]) -> ModelInfo | None:
    return next((info for info in models if info.default), None)


def _levels_of(
    model: str, chosen: ModelInfo | None, found: ModelList, provider: Provider
) -> tuple[str, ...] | None:
    """The levels of the model that will be used (of any, if it is not known which is); None: not known."""
    if chosen is not None and (chosen.thinking_levels or found.levels_told):
        return chosen.thinking_levels
    if found.levels_told and found.models:
        if model:
            return None  # a model that nobody told of
        return tuple(dict.fromkeys(level for info in found.models for level in info.thinking_levels))
    return provider.thinking.levels or None


async def _in_thread(
    provider: Provider, agent: FoundAgent, environ: Mapping[str, str], limit_s: float
) -> ModelList:
    cancelled = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(
        None, _find, provider, agent, dict(environ), limit_s, cancelled
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()  # the program that is being asked is ended first
        await asyncio.wait([work], timeout=2.0)
        raise


def _find(
    provider: Provider,
    agent: FoundAgent,
    environ: dict[str, str],
    limit_s: float,
    cancelled: threading.Event,
) -> ModelList:
    models = provider.models
    own = tuple(
        ModelInfo(id=known.id, name=known.name, default=known.default, thinking_levels=known.thinking)
        for known in models.known
    )
    base = ModelList(models=own, source=models.source, open=models.any or models.source == "none")
    try:
        with tempfile.TemporaryDirectory(prefix="ostler-models-", ignore_cleanup_errors=True) as empty:
            found = base
            if models.source in ("command", "acp") and not _too_old(provider, agent):
                found = _told(provider, agent, environ, limit_s, cancelled, base, empty)
            return _with_help(provider, agent, environ, limit_s, cancelled, found, empty)
    except OSError as error:
        return msgspec.structs.replace(base, error=str(error))


def _told(
    provider: Provider,
    agent: FoundAgent,
    environ: Mapping[str, str],
    limit_s: float,
    cancelled: threading.Event,
    base: ModelList,
    empty: str,
) -> ModelList:
    """What the program says, or ``base`` with the reason why it says nothing."""
    by_acp = provider.models.source == "acp"
    question = Question(
        argv=(agent.path, *(provider.models.args or provider.drive.args)),
        env=_environment(provider, agent, environ),
        limit_s=limit_s,
        output_limit_bytes=OUTPUT_LIMIT_BYTES,
        cwd=empty,
        stdin=_acp_requests(empty) if by_acp else None,
        enough=_acp_answered if by_acp else None,
    )
    (answer,) = probes.ask_all([question], cancelled)
    if by_acp:
        listed, error = _acp_list(answer, by_name=provider.models.reader == "names")
    else:
        listed = None if answer.failure else model_readers.READERS[provider.models.reader](answer.stdout)
        error = "" if listed is not None else _why(answer, limit_s)
    if listed is None or error:
        return msgspec.structs.replace(base, error=error or "it tells no models")
    return msgspec.structs.replace(base, models=listed.models or base.models, levels_told=listed.levels_told)


def _with_help(
    provider: Provider,
    agent: FoundAgent,
    environ: Mapping[str, str],
    limit_s: float,
    cancelled: threading.Event,
    found: ModelList,
    empty: str,
) -> ModelList:
    """With the thinking levels that the help text names, for models that have none of their own."""
    levels = provider.thinking.levels
    if provider.thinking.help:
        env = _environment(provider, agent, environ)
        question = Question(argv=(agent.path, *provider.thinking.help), env=env, limit_s=limit_s, cwd=empty)
        (answer,) = probes.ask_all([question], cancelled)
        text = "" if answer.failure else answer.stdout or answer.stderr
        levels = model_readers.levels_in_help(text, provider.drive.thinking) or levels
    if not levels or found.levels_told:
        return found
    models = tuple(
        info if info.thinking_levels else msgspec.structs.replace(info, thinking_levels=levels)
        for info in found.models
    )
    return msgspec.structs.replace(found, models=models)


def _environment(provider: Provider, agent: FoundAgent, environ: Mapping[str, str]) -> dict[str, str]:
    env = probe_env(environ, agent.path, agent.search_path)
    return {**env, **{name: value for name, value in provider.drive.env.items() if "{" not in value}}


def _too_old(provider: Provider, agent: FoundAgent) -> bool:
    least, has = parse_version(provider.models.from_version), parse_version(agent.version)
    return least is not None and has is not None and has < least


def _why(answer: Answer, limit_s: float) -> str:
    if answer.failure == "timed_out":
        return f"it did not answer within {limit_s:g} s"
    if answer.failure == "not_started":
        return f"it cannot be started: {answer.error}"
    if answer.failure:
        return answer.failure.replace("_", " ")
    said = " ".join((answer.stderr.strip() or answer.stdout.strip()).split())[-ERROR_LIMIT_CHARS:]
    code = f"exit code {answer.exit_code}" if answer.exit_code else "its answer cannot be read"
    return f"{code}: {said}" if said else code


def wire_models(found: ModelList) -> list[dict[str, Any]]:
    """Models as servers are told of them."""
    made: list[dict[str, Any]] = []
    for info in found.models:
        told: dict[str, Any] = {"id": info.id, "label": info.name or info.id}
        provider, slash, _ = info.id.partition("/")
        if slash:
            told["provider"] = provider
        if info.default:
            told["default"] = True
        if info.thinking_levels:
            levels = [{"value": level, "label": level} for level in info.thinking_levels]
            told["thinking"] = {"supported_levels": levels}
            if info.default_level:
                told["thinking"]["default_level"] = info.default_level
        made.append(told)
    return made


# --- by ACP --------------------------------------------------------------------------------------


def _acp_requests(directory: str) -> bytes:
    """What opens a conversation and a session in an empty directory; nothing is ever prompted."""
    hello = {
        "protocolVersion": 1,
        "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
        "clientInfo": {"name": "ostler", "title": "Ostler", "version": "1"},
    }
    session = {"cwd": directory, "mcpServers": []}
    requests = [(1, "initialize", hello), (2, "session/new", session)]
    return b"".join(
        msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + b"\n"
        for number, method, params in requests
    )


def _acp_answered(output: bytes) -> bool:
    return bool(_acp_ends(output.splitlines()))


def _acp_ends(lines: Sequence[bytes] | Sequence[str]) -> list[dict[str, object]]:
    """Answers after which nothing more is to come: the session, or a refusal."""
    ends = []
    for line in lines:
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if not isinstance(found, dict):
            continue
        if found.get("id") == 2 or (found.get("id") == 1 and "error" in found):
            ends.append(found)
    return ends


def _acp_list(answer: Answer, *, by_name: bool) -> tuple[Listed | None, str]:
    for found in _acp_ends(answer.stdout.splitlines()):
        if "result" in found:
            return model_readers.acp_session(found["result"], by_name=by_name), ""
        error = found.get("error")
        said = str(error.get("message", "")) if isinstance(error, dict) else ""
        return None, " ".join(said.split())[:ERROR_LIMIT_CHARS] or "it refuses a session"
    return None, _why(answer, LIST_LIMIT_S)


# --- the cache -----------------------------------------------------------------------------------


def _key(provider: Provider, agent: FoundAgent) -> str:
    """Which program, and how it is asked."""
    try:
        info = os.stat(agent.path)
        identity = f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"
    except (OSError, ValueError):
        identity = ""
    asked = msgspec.json.encode([provider.models, provider.thinking, provider.drive]).decode()
    return "\0".join((provider.id, agent.path, agent.version, identity, asked))


def _read(path: Path | None) -> dict[str, _Known]:
    if path is None:
        return {}
    try:
        cache = msgspec.json.decode(path.read_bytes(), type=_Cache)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.info("the cache of models cannot be read and is made anew: %s", error)
        return {}
    return cache.entries if cache.version == _Cache().version else {}


def _write(path: Path, cache: _Cache) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, msgspec.json.encode(cache))
    except OSError as error:
        log.info("the cache of models cannot be written: %s", error)
