"""The API's reference, rendered from its own OpenAPI document: no viewer from elsewhere, no script."""

from __future__ import annotations

from typing import Any

import msgspec

from sekisho.console.render import View


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter or a field of a body or an answer."""

    name: str
    place: str
    kind: str
    required: bool
    description: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    anchor: str
    method: str
    path: str
    summary: str
    parameters: tuple[Field, ...]
    body: tuple[Field, ...]
    answer: tuple[Field, ...]
    answer_kind: str
    statuses: tuple[str, ...]


class DocsView(View, frozen=True, kw_only=True):
    title: str
    version: str
    description: str
    operations: tuple[Operation, ...]

    @property
    def template(self) -> str:
        return "docs.html"


def docs_view(schema: dict[str, Any]) -> DocsView:
    components = schema.get("components", {}).get("schemas", {})
    operations = [
        _operation(path, method, operation, components)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict)
    ]
    return DocsView(
        title=schema["info"]["title"],
        version=schema["info"]["version"],
        description=schema["info"].get("description", ""),
        operations=tuple(operations),
    )


def _operation(path: str, method: str, operation: dict[str, Any], components: dict[str, Any]) -> Operation:
    parameters = tuple(
        Field(
            name=each["name"],
            place=each["in"],
            kind=_kind(each.get("schema", {})),
            required=bool(each.get("required")),
            description=each.get("description", ""),
        )
        for each in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    good: dict[str, Any] = next(
        (answer for status, answer in operation["responses"].items() if status.startswith("2")), {}
    )
    answer = good.get("content", {}).get("application/json", {}).get("schema", {})
    return Operation(
        anchor=operation.get("operationId", method),
        method=method.upper(),
        path=path,
        summary=operation.get("summary", ""),
        parameters=parameters,
        body=_fields(body, components),
        answer=_fields(answer, components),
        answer_kind=_kind(answer) if answer else "",
        statuses=tuple(operation["responses"]),
    )


def _fields(schema: dict[str, Any], components: dict[str, Any]) -> tuple[Field, ...]:
    found = _resolved(schema, components)
    if found.get("type") == "array":
        found = _resolved(found.get("items", {}), components)
    required = set(found.get("required", ()))
    return tuple(
        Field(
            name=name,
            place="",
            kind=_kind(inner),
            required=name in required,
            description=inner.get("description", ""),
        )
        for name, inner in found.get("properties", {}).items()
    )


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    resolved: dict[str, Any] = components.get(name, schema) if name else schema
    return resolved


def _kind(schema: dict[str, Any]) -> str:
    """A type in a few words: `string`, `Fault[]`, `integer | null`, with the pattern that it must have."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].rpartition("_")[2]
    alternatives = schema.get("oneOf") or schema.get("anyOf")
    if alternatives:
        return " | ".join(dict.fromkeys(_kind(each) for each in alternatives))
    if schema.get("type") == "array":
        return f"{_kind(schema.get('items', {}))}[]"
    kind = schema.get("type", "any")
    text = " | ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{text} {schema['pattern']}" if "pattern" in schema else text
