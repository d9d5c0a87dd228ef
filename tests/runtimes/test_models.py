"""Lists of models from stand-in programs, what is remembered of them, and what of a choice is passed on."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.agents.family import Drive
from daemon_core.agents.words import Words
from daemon_core.runtimes import model_readers, models
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.models import ModelCatalog, ModelInfo, ModelList, wire_models
from daemon_core.runtimes.providers import KnownModel, Models, Provider, Thinking
from tests.support.driving import wait_for

CODEX = json.dumps(
    {
        "models": [
            {"slug": "hidden", "visibility": "hide", "priority": 0},
            {
                "slug": "big", "display_name": "Big", "visibility": "list", "priority": 2,
                "default_reasoning_level": "low",
                "supported_reasoning_levels": [{"effort": "low", "description": "x"}, {"effort": "high"}],
            },
            {"slug": "small", "visibility": "list", "priority": 1, "supported_reasoning_levels": []},
        ]
    }
)  # fmt: skip
OPENCODE = """\
opencode/pickle
{
  "id": "pickle",
  "name": "Pickle",
  "variants": {}
}
opencode/ling
{
  "name": "Ling",
  "variants": { "low": {"x": 1}, "high": {} }
}
"""
SESSION = {
    "sessionId": "s",
    "models": {
        "availableModels": [{"modelId": "m1", "name": "One"}, {"modelId": "m2(auth)", "name": "two"}],
        "currentModelId": "m2(auth)",
    },
}
OPTIONS = {
    "configOptions": [
        {
            "id": "model", "category": "model", "currentValue": "p/b",
            "options": [{"value": "p/a", "name": "A"}, {"options": [{"value": "p/b", "name": "B"}]}],
        },
        {
            "id": "effort", "category": "thought_level", "currentValue": "low",
            "options": [{"value": "low"}, {"value": "high"}],
        },
    ]
}  # fmt: skip


class Stand:
    """A program that answers as the test says, and counts how often it was started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "agent"
        self.asked = root / "asked"
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(root)}
        self.agent = FoundAgent(
            provider="agent", name="Agent", status="usable", path=str(self.path), version="2.0.0"
        )

    def answers(self, text: str, *, code: int = 0) -> None:
        (self.root / "answer").write_text(text)
        self.script(f"cat {self.root}/answer; exit {code}")

    def script(self, text: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho x >> {self.asked}\n{text}\n")
        self.path.chmod(0o755)

    def speaks_acp(self, result: object, *, error: bool = False) -> None:
        """Answers the second request, when it comes, and then waits for its end like a real one."""
        told = {"jsonrpc": "2.0", "id": 2, "error" if error else "result": result}
        (self.root / "answer").write_text(json.dumps(told) + "\n")
        self.script(
            'read -r one; echo \'a note\'; echo \'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}\'\n'
            f'read -r two; echo "$one" > {self.root}/one; echo "$two" > {self.root}/two\n'
            f"cat {self.root}/answer; echo $$ > {self.root}/pid; exec sleep 60"
        )

    @property
    def times(self) -> int:
        return len(self.asked.read_text().splitlines()) if self.asked.exists() else 0


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def provider(
    source: str = "command",
    reader: str = "codex",
    *,
    open_: bool = False,
    thinking: Thinking | None = None,
    **more: object,
) -> Provider:
    return Provider(
        id="agent",
        name="Agent",
        executables=("agent",),
        family="plain",
        models=Models(source=source, args=("list",), reader=reader, any=open_, **more),  # type: ignore[arg-type]
        thinking=thinking or Thinking(),
        drive=Drive(model="--model", thinking="--effort"),
    )


# --- listing -------------------------------------------------------------------------------------


async def test_a_command_is_asked_in_an_empty_directory(stand: Stand) -> None:
    (stand.root / "answer").write_text(CODEX)
    stand.script(
        f"pwd > {stand.root}/where; ls -A | wc -l >> {stand.root}/where; echo $1; cat {stand.root}/answer"
    )
    found = await ModelCatalog(None).list_models(provider(), stand.agent, stand.environ)

    assert [info.id for info in found.models] == ["small", "big"]
    assert found.models[1] == ModelInfo(
        id="big", name="Big", thinking_levels=("low", "high"), default_level="low"
    )
    assert (found.source, found.error, found.open, found.levels_told) == ("command", "", False, True)
    where, files = (stand.root / "where").read_text().split()
    assert files == "0"
    assert not Path(where).exists()


async def test_acp_is_opened_and_ended(stand: Stand) -> None:
    stand.speaks_acp(SESSION)
    began = time.monotonic()
    found = await ModelCatalog(None).list_models(provider("acp", ""), stand.agent, stand.environ)

    assert time.monotonic() - began < 15
    assert [(info.id, info.name, info.default) for info in found.models] == [
        ("m1", "One", False),
        ("m2(auth)", "two", True),
    ]
    first, second = (json.loads((stand.root / name).read_text()) for name in ("one", "two"))
    assert (first["method"], second["method"]) == ("initialize", "session/new")
    assert second["params"]["mcpServers"] == []
    pid = stand.root / "pid"
    if pid.exists():
        await asyncio.to_thread(wait_for, lambda: not _runs(int(pid.read_text())), "the end of the agent")


async def test_an_agent_that_is_told_names_elsewhere_lists_names(stand: Stand) -> None:
    stand.speaks_acp(SESSION)
    found = await ModelCatalog(None).list_models(provider("acp", "names"), stand.agent, stand.environ)
    assert [info.id for info in found.models] == ["One", "two"]


async def test_acp_that_refuses_says_why(stand: Stand) -> None:
    stand.speaks_acp({"code": -32000, "message": "Authentication required"}, error=True)
    found = await ModelCatalog(None).list_models(provider("acp", ""), stand.agent, stand.environ)
    assert (found.models, found.error) == ((), "Authentication required")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no such command >&2; exit 2", "exit code 2: no such command"),
        ("echo hello", "its answer cannot be read: hello"),
        ("sleep 60", "it did not answer within 0.5 s"),
    ],
)
async def test_what_goes_wrong_is_told_and_what_is_known_is_listed(
    stand: Stand, script: str, said: str
) -> None:
    stand.script(script)
    known = provider(known=(KnownModel(id="old", name="Old", default=True),))
    found = await ModelCatalog(None).list_models(known, stand.agent, stand.environ, limit_s=0.5)

    assert found.error == said
    assert [info.id for info in found.models] == ["old"]


async def test_a_program_that_is_gone_is_told(stand: Stand) -> None:
    found = await ModelCatalog(None).list_models(provider(), stand.agent, stand.environ)
    assert found.error.startswith("it cannot be started")


async def test_a_version_that_cannot_tell_is_not_asked(stand: Stand) -> None:
    stand.answers(CODEX)
    found = await ModelCatalog(None).list_models(provider(from_version="2.1.0"), stand.agent, stand.environ)
    assert (found.models, stand.times) == ((), 0)


async def test_levels_are_read_from_the_help_text(stand: Stand) -> None:
    stand.answers(
        "  --model <m>  One (a, b)\n  --effort <level>  Effort of the session (low, medium, high)\n"
        "  --x (q, r)\n"
    )
    known = provider(
        "static",
        "",
        known=(KnownModel(id="m"), KnownModel(id="n", thinking=("max",))),
        thinking=Thinking(help=("--help",)),
    )
    found = await ModelCatalog(None).list_models(known, stand.agent, stand.environ)
    assert [info.thinking_levels for info in found.models] == [("low", "medium", "high"), ("max",)]


async def test_all_who_ask_at_once_get_one_answer(stand: Stand) -> None:
    stand.answers(CODEX)
    catalog = ModelCatalog(None)
    found = await asyncio.gather(
        *(catalog.list_models(provider(), stand.agent, stand.environ) for _ in range(5))
    )
    assert all(each == found[0] for each in found)
    assert stand.times == 1
    await catalog.list_models(provider(), stand.agent, stand.environ)
    assert stand.times == 1
    await catalog.list_models(provider(), stand.agent, stand.environ, refresh=True)
    assert stand.times == 2


async def test_an_old_answer_is_asked_for_again_but_serves_to_check(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.answers(CODEX)
    cache = tmp_path / "cache" / "models.json"
    await ModelCatalog(cache).list_models(provider(), stand.agent, stand.environ)
    assert cache.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(models, "FRESH_S", 0.0)

    later = ModelCatalog(cache)
    choice = await later.choose(provider(), stand.agent, stand.environ, "nothing", "")
    assert choice.warnings
    assert stand.times == 1
    await later.list_models(provider(), stand.agent, stand.environ)
    assert stand.times == 2
    stand.answers(CODEX + " ")  # another program now
    await later.choose(provider(), stand.agent, stand.environ, "big", "")
    assert stand.times == 3


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"version":9,"entries":{}}', b"[" * 100_000]
)
async def test_a_damaged_cache_costs_nothing(stand: Stand, tmp_path: Path, content: bytes) -> None:
    stand.answers(CODEX)
    cache = tmp_path / "models.json"
    cache.write_bytes(content)
    assert (await ModelCatalog(cache).list_models(provider(), stand.agent, stand.environ)).models


async def test_a_failure_is_not_remembered(stand: Stand) -> None:
    catalog = ModelCatalog(None)
    stand.script("exit 1")
    assert (await catalog.list_models(provider(), stand.agent, stand.environ)).error
    stand.answers(CODEX)
    assert not (await catalog.list_models(provider(), stand.agent, stand.environ)).error


async def test_a_cancelled_question_leaves_nothing(stand: Stand) -> None:
    stand.script(f"echo $$ > {stand.root}/pid; exec sleep 60")
    asking = asyncio.ensure_future(ModelCatalog(None).list_models(provider(), stand.agent, stand.environ))
    pid = stand.root / "pid"
    await asyncio.to_thread(wait_for, lambda: pid.exists() and pid.read_text() != "", "the question")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not _runs(int(pid.read_text()))


# --- choosing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "level", "kept", "warned"),
    [
        ("", "", ("", ""), ""),
        ("big", "", ("big", ""), ""),
        ("big", "high", ("big", "high"), ""),
        ("big", "max", ("big", ""), "big has no thinking level max (it has low, high)"),
        ("small", "low", ("small", ""), "(it has none)"),
        ("other", "", ("", ""), "Agent has no model other here"),
        ("", "low", ("", "low"), ""),
        ("", "max", ("", ""), "Agent has no thinking level max"),
    ],
)
async def test_what_of_a_choice_is_passed_on(
    stand: Stand, model: str, level: str, kept: tuple[str, str], warned: str
) -> None:
    stand.answers(CODEX)
    choice = await ModelCatalog(None).choose(provider(), stand.agent, stand.environ, model, level)

    assert (choice.model, choice.thinking_level) == kept
    assert (warned in " ".join(choice.warnings)) if warned else not choice.warnings


async def test_where_other_names_may_be_good_they_are_passed_on(stand: Stand) -> None:
    stand.answers(CODEX)
    catalog, open_ = ModelCatalog(None), provider(open_=True)

    assert (await catalog.choose(open_, stand.agent, stand.environ, "other", "")).model == "other"
    assert stand.times == 0, "there is nothing to check"
    choice = await catalog.choose(open_, stand.agent, stand.environ, "other", "max")
    assert (choice.model, choice.thinking_level, choice.warnings) == ("other", "max", ())


async def test_an_agent_that_cannot_be_asked_gets_everything(stand: Stand) -> None:
    stand.script("exit 1")
    choice = await ModelCatalog(None).choose(provider(), stand.agent, stand.environ, "x", "y")
    assert (choice.model, choice.thinking_level, choice.warnings) == ("x", "y", ())


async def test_what_an_agent_has_no_way_to_be_told_is_left_out(stand: Stand) -> None:
    plain = Provider(id="agent", name="Agent", executables=("agent",), family="plain")
    choice = await ModelCatalog(None).choose(plain, stand.agent, stand.environ, "m", "high")
    assert (choice.model, choice.thinking_level) == ("", "")
    assert [text.code for text in choice.warnings if isinstance(text, Words)] == [
        "model_not_chosen",
        "no_thinking_levels",
    ]


# --- reading -------------------------------------------------------------------------------------


def test_opencodes_blocks() -> None:
    found = model_readers.opencode(OPENCODE)
    assert found is not None
    assert [(info.id, info.name, info.thinking_levels) for info in found.models] == [
        ("opencode/pickle", "Pickle", ()),
        ("opencode/ling", "Ling", ("low", "high")),
    ]
    assert found.levels_told


def test_opencodes_names_alone() -> None:
    found = model_readers.opencode("a/b\nc/d/e\n")
    assert found is not None
    assert [info.id for info in found.models] == ["a/b", "c/d/e"]
    assert not found.levels_told


def test_lines_with_names_and_headings() -> None:
    found = model_readers.lines("Available models\n\nauto - Auto\n* two-2 - Two (current, default)\nthree\n")
    assert found is not None
    assert [(info.id, info.name, info.default) for info in found.models] == [
        ("auto", "Auto", False),
        ("two-2", "Two", True),
        ("three", "", False),
    ]


def test_tables_and_json() -> None:
    rows = model_readers.table("provider  model  context\nopenai    gpt-x  128k\n")
    assert rows is not None
    assert [info.id for info in rows.models] == ["openai/gpt-x"]
    found = model_readers.any_json('note\n[{"provider":"p","model":"m","default":true},"x"]')
    assert found is not None
    assert [(info.id, info.default) for info in found.models] == [("p/m", True), ("x", False)]
    levels = '{"supported_levels":[{"value":"low","label":"Low"},{"value":"high"},3],"default_level":"low"}'
    found = model_readers.any_json(f'{{"v":1,"models":[{{"id":"p/m","thinking":{levels}}}]}}')
    assert found is not None
    (info,) = found.models
    assert (info.thinking_levels, info.default_level) == (("low", "high"), "low")


def test_options_of_a_session() -> None:
    found = model_readers.acp_session(OPTIONS)
    assert [(info.id, info.default, info.thinking_levels, info.default_level) for info in found.models] == [
        ("p/a", False, ("low", "high"), "low"),
        ("p/b", True, ("low", "high"), "low"),
    ]


def test_what_a_server_is_told() -> None:
    listed = ModelList(
        models=(
            ModelInfo(id="p/m", default=True, thinking_levels=("low",), default_level="low"),
            ModelInfo(id="x"),
        )
    )
    assert wire_models(listed) == [
        {
            "id": "p/m",
            "label": "p/m",
            "provider": "p",
            "default": True,
            "thinking": {"supported_levels": [{"value": "low", "label": "low"}], "default_level": "low"},
        },
        {"id": "x", "label": "x"},
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["models", "slug", "id", "name", "availableModels", "modelId", "configOptions", "options",
             "supported_reasoning_levels", "priority", "category", "variants", "provider", "value"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(
    st.text()
    | _JSON.map(json.dumps)
    | st.sampled_from([CODEX, OPENCODE]).map(lambda text: text[: len(text) // 2])
)
def test_no_answer_is_too_odd(text: str) -> None:
    for read in model_readers.READERS.values():
        found = read(text)
        assert found is None or all(info.id for info in found.models)
    model_readers.levels_in_help(text, "--effort")


@given(_JSON)
def test_no_session_is_too_odd(result: object) -> None:
    assert all(info.id for info in model_readers.acp_session(result).models)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
