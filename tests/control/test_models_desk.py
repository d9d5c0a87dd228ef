"""Models of agents over the control API: who is asked, and who cannot be."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from daemon_core.control.errors import ControlError
from daemon_core.control.models_desk import ModelsDesk
from daemon_core.runtimes.discovery import FoundAgent
from daemon_core.runtimes.models import ModelCatalog
from daemon_core.runtimes.providers import KnownModel, Models, Provider, Registry
from tests.control.memory_backend import MemoryBackend


def provider(name: str, **more: object) -> Provider:
    models = Models(source="static", known=(KnownModel(id="one", default=True), KnownModel(id="two")))
    return Provider(id=name, name=name, executables=(name,), family="plain", models=models)


@pytest.fixture
def desk(tmp_path: Path) -> ModelsDesk:
    found = [
        FoundAgent(
            provider="here", name="Here", status="usable", path=str(tmp_path / "here"), version="1.0.0"
        ),
        FoundAgent(
            provider="old",
            name="Old",
            status="too_old",
            reason="version_too_old",
            params={"version": "0.1.0"},
        ),
        FoundAgent(provider="gone", name="Gone", status="missing"),
        FoundAgent(provider="unknown", name="Unknown", status="usable"),
    ]
    return ModelsDesk(
        ModelCatalog(None),
        registry=lambda: Registry([provider("here"), provider("old"), provider("gone")]),
        found=lambda: found,
        environ=lambda: {"PATH": "/usr/bin"},
        provider_of=lambda runtime: "here" if runtime == "runtime-1" else "",
    )


@pytest.mark.parametrize("named", ["here", "HERE", "runtime-1"])
async def test_an_agent_is_named_by_provider_or_runtime(desk: ModelsDesk, named: str) -> None:
    found = await desk.view(named)
    assert (found.runtime, found.source, found.error) == ("here", "static", "")
    assert [(model.id, model.default) for model in found.models] == [("one", True), ("two", False)]


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("gone", "unknown_runtime"),
        ("nobody", "unknown_runtime"),
        ("unknown", "unknown_runtime"),
        ("old", "runtime_unusable"),
    ],
)
async def test_one_that_cannot_be_asked_is_refused(desk: ModelsDesk, named: str, code: str) -> None:
    with pytest.raises(ControlError) as refused:
        await desk.view(named)
    assert refused.value.code == code
    choice = await desk.choose(named, "m", "high")
    assert (choice.model, choice.thinking_level) == ("m", "high")


async def test_over_the_socket(http: aiohttp.ClientSession, backend: MemoryBackend, desk: ModelsDesk) -> None:
    async with http.get("/v1/runtimes/here/models") as answer:
        assert answer.status == 503
    backend.models = desk
    async with http.get("/v1/runtimes/here/models?refresh=true") as answer:
        assert answer.status == 200
        told = await answer.json()
    assert [model["id"] for model in told["models"]] == ["one", "two"]
    async with http.get("/v1/runtimes/old/models") as answer:
        assert answer.status == 409
        assert (await answer.json())["error"]["params"]["reason"] == "version_too_old"
