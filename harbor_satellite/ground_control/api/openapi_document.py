"""The API's document, made true: which errors an operation can answer with, and none that it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from harbor_satellite.ground_control.api.openapi_examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

_ERROR: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
_ALWAYS: Final = {
    "400": "The request breaks a rule; the message names it.",
    "404": "There is no such thing.",
    "413": "The body is too large.",
    "429": "Too many requests or failures; see Retry-After.",
    "500": "An error nobody expected; the log has the request's id.",
    "502": "The source cannot be reached or refuses.",
    "503": "The database, or a part of this service, is not available.",
}
_OF_CHANGES: Final = {"409": "It contradicts what is there, or another request was first."}
_OF_CALLERS: Final = {"401": "Credentials or token missing or wrong."}
_OF_PEOPLE: Final = {"403": "The caller may not do this."}
_NOT_OURS: Final = ("HTTPValidationError", "ValidationError")


def describe_answers(app: FastAPI) -> None:
    """Let the app's document name the errors of every operation; FastAPI's own 422, which we never send, goes."""
    # As FastAPI's own guide does it; its routers ask for exactly this attribute.
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
        schemas = document.get("components", {}).get("schemas", {})
        for name in _NOT_OURS:
            schemas.pop(name, None)
        for name, schema in schemas.items():
            _complete_schema(name, schema)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    responses.pop("422", None)
    if path == "/ping":
        return
    wanted: Mapping[str, str] = _ALWAYS | (_OF_CHANGES if method != "get" else {})
    if operation.get("security") or path == "/login":
        wanted = {**wanted, **_OF_CALLERS, **_OF_PEOPLE}
    for status, description in wanted.items():
        responses.setdefault(status, {"description": description, "content": _ERROR})
    operation["responses"] = dict(sorted(responses.items()))


def _complete_schema(name: str, schema: dict[str, Any]) -> None:
    shown = EXAMPLES.get(name.removesuffix("-Input").removesuffix("-Output"))
    if shown is not None:
        schema["examples"] = [shown]
    for value in schema.get("properties", {}).values():
        # pydantic thinks that no secret is ever answered; those of tokens are, once.
        value.pop("writeOnly", None)
