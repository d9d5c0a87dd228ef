"""Writes ``resources/control-api.openapi.json`` from the route table and the views.

    python -m daemon_core.control.openapi [FILE]

A test holds the file against this, so that a change of the API is a change of the file that a reviewer sees.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemon_core.control.errors import STATUS
from daemon_core.control.routes import ROUTES, Route

_REF = "#/components/schemas/{name}"


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A code and its parameters; whoever shows it makes the words."""

    code: str
    params: dict[str, Any] = {}


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorDetail


def document() -> dict[str, Any]:
    """The whole description, OpenAPI 3.1."""
    kinds: list[Any] = [ErrorAnswer]
    for route in ROUTES:
        kinds += [kind for kind in (route.answers, route.takes) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    lookup = {str(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation = _operation(route, lambda kind: lookup[str(kind)])
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ostler's local control API",
            "version": "1",
            "description": (
                "HTTP over a unix socket (run/control.sock below the profile's directories), for the same "
                "user's own programs. Times are RFC 3339 in UTC, durations seconds, sizes bytes. Refusals "
                "are a code with parameters. Fields are added within a version, never renamed or taken away; "
                "unknown ones are to be ignored. A request with an Origin, a foreign Host or a cross-site "
                "Sec-Fetch-Site is refused."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {
                "Refusal": {
                    "description": "Refused; codes: " + ", ".join(f"{c} ({s})" for c, s in STATUS.items()),
                    "content": {"application/json": {"schema": lookup[str(ErrorAnswer)]}},
                }
            },
        },
    }


def _operation(route: Route, schema: Callable[[Any], Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.what, "schema": {"type": query.kind}}
        for query in route.query
    ]
    media = {"": "application/json", "events": "text/event-stream", "lines": "application/x-ndjson"}[
        route.stream
    ]
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.what}
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema(route.takes)}},
        }
    what = {"": "Done", "events": "Events, each as below", "lines": "Lines, each as below"}[route.stream]
    operation["responses"] = {
        str(route.status): {"description": what, "content": {media: {"schema": schema(route.answers)}}},
        "default": {"$ref": "#/components/responses/Refusal"},
    }
    refusals = (*route.refusals, "refused_from_run") if route.guarded else route.refusals
    if refusals:
        operation["x-refusals"] = list(refusals)
    return operation


def text() -> str:
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


def main() -> None:
    default = Path(__file__).resolve().parents[2] / "resources" / "control-api.openapi.json"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    target.write_text(text(), "utf-8")


if __name__ == "__main__":
    main()
