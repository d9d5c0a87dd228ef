"""The description in ``resources`` is that of the server, field by field."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

import daemon_core
from daemon_core.control import views
from daemon_core.control.errors import STATUS
from daemon_core.control.openapi import document, text
from daemon_core.control.routes import ROUTES
from daemon_core.control.server import ControlServer
from tests.control.memory_backend import MemoryBackend

FILE = Path(daemon_core.__file__).parents[1] / "resources" / "control-api.openapi.json"


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text() == text(), "run: python -m daemon_core.control.openapi"


async def test_every_route_of_the_server_is_described_and_no_other(tmp_path: Path) -> None:
    server = ControlServer(MemoryBackend(), tmp_path / "s")
    served = {
        (route.method, route.resource.canonical)
        for route in server.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {
        (method.upper(), path)
        for path, operations in json.loads(FILE.read_text())["paths"].items()
        for method in operations
    }
    assert served == described


def test_schemas_have_the_fields_of_the_views() -> None:
    schemas = document()["components"]["schemas"]
    for name, schema in schemas.items():
        kind = getattr(views, name, None)
        if kind is not None and "properties" in schema:
            assert list(schema["properties"]) == [field.encode_name for field in msgspec.structs.fields(kind)]


def test_every_refusal_of_a_route_is_in_the_table() -> None:
    assert {code for route in ROUTES for code in route.refusals} <= set(STATUS)
