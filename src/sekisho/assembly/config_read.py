"""Reads a table of a file into a struct of `config_schema`, and reports all that does not fit, each at its line."""

from __future__ import annotations

import json
import types
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from sekisho.assembly.config_kinds import RawTable
from sekisho.federation.build import did_you_mean
from sekisho.runtime.toml import Document, Problem, TomlPath

_T = TypeVar("_T", bound=RawTable)
_SHOWN_CHARACTERS = 60


class Reader:
    """One for a document; `problems` grows with every call."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def refuse(self, path: TomlPath, what: str, mend: str) -> None:
        self.problems.append(self.document.problem(path, what, mend))

    def table(self, kind: type[_T], data: dict[str, Any], path: TomlPath) -> _T:
        """The struct of this table. What was refused is reported, and stands there as its default or empty."""
        fields = _fields(kind)
        for name in data:
            if name not in fields:
                self.refuse(
                    (*path, name),
                    f"{self.called(path)} has no field `{_clipped(name)}`",
                    did_you_mean(name, fields),
                )
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in data:
                values[name] = self._value(data[name], field.type, (*path, name), empty=_default(field))
            elif field.required:
                self.refuse(
                    path, f"{self.called(path)} has no `{name}`", f"add it, as in {name} = {_example(field.type)}"
                )
                values[name] = _default(field)
        return kind(**values)

    def called(self, path: TomlPath) -> str:
        """How people call what lies at `path`: `[gateway.tls]`, `site `x``, `[[site]] number 2`."""
        if not path:
            return "the file"
        if len(path) >= 2 and isinstance(path[1], int):
            around = f"[[{path[0]}]] number {path[1] + 1}"
            elements = self.document.data.get(str(path[0]))
            element = elements[path[1]] if isinstance(elements, list) else None
            name = element.get("id", element.get("name")) if isinstance(element, dict) else None
            if isinstance(name, str) and name:
                around = f"{path[0]} `{_clipped(name)}`"
            rest = ".".join(_clipped(str(part)) for part in path[2:])
            return f"`{rest}` of {around}" if rest else around
        return f"[{'.'.join(_clipped(str(part)) for part in path)}]"

    def _value(self, value: Any, annotation: Any, path: TomlPath, *, empty: Any) -> Any:
        kind, meta = _unwrap(annotation)
        members = _members(kind)
        tables = [member for member in members if _is_table(_unwrap(member)[0])]
        others = [member for member in members if member not in tables]
        if tables and (isinstance(value, dict) or not others):
            table = _unwrap(tables[0])[0]
            if not isinstance(value, dict):
                # The value is not shown: this is where people put a secret instead of its place.
                if isinstance(path[-1], int):
                    self.refuse(path, f"{self.called(path)} is not a table", _table_mend(path))
                else:
                    self.refuse(path, f"`{path[-1]}` is not a table", f"write it as {path[-1]} = {_example(table)}")
                return empty
            return self.table(table, value, path)
        if len(members) > 1 or members[0] is not kind:
            # Of `X | None` and `X | table` this is X, with what its own Meta say.
            annotation = others[0]
            kind, meta = _unwrap(annotation)
        if get_origin(kind) is list:
            return self._list(value, kind, meta, path, empty=empty)
        if get_origin(kind) is dict:
            return self._dict(value, kind, path)
        return self._scalar(value, annotation, meta, path, empty=empty)

    def _list(self, value: Any, kind: Any, meta: dict[str, Any], path: TomlPath, *, empty: Any) -> Any:
        (item,) = get_args(kind)
        if not isinstance(value, list):
            mend = _table_mend(path) if _is_table(item) else f"write it as {path[-1]} = [{_example(item)}]"
            self.refuse(path, f"`{path[-1]}` is not a list", mend)
            return empty
        if not value and meta.get("min_length"):
            self.refuse(
                path,
                f"`{path[-1]}` of {self.called(path[:-1])} is empty",
                f"name at least one, as in {_example(kind)}",
            )
        return [
            self._value(element, item, (*path, place), empty=_empty_of(item)) for place, element in enumerate(value)
        ]

    def _dict(self, value: Any, kind: Any, path: TomlPath) -> dict[str, Any]:
        key_kind, item = get_args(kind)
        if not isinstance(value, dict):
            self.refuse(
                path, f"`{path[-1]}` is not a table", f"write [{path[0]}.{path[-1]}.NAME] in a line of its own"
            )
            return {}
        for key in value:
            self._scalar(key, key_kind, _unwrap(key_kind)[1], (*path, key), empty="")
        return {
            key: self._value(element, item, (*path, key), empty=_empty_of(item)) for key, element in value.items()
        }

    def _scalar(self, value: Any, annotation: Any, meta: dict[str, Any], path: TomlPath, *, empty: Any) -> Any:
        title = meta.get("title") or "true or false"
        name = path[-1] if isinstance(path[-1], str) else path[-2]
        try:
            converted = msgspec.convert(value, annotation)
        except msgspec.ValidationError:
            shown = "not" if meta.get("secret") else f"{_shown(value)}, not"
            example = _example(annotation)
            mend = f"write it as {name} = {example}" if isinstance(path[-1], str) else f"write it as {example}"
            self.refuse(path, f"`{name}` is {shown} {title}", mend)
            return empty
        # A pattern's `$` lets a line end pass, and no value of ours has control characters.
        if isinstance(converted, str) and not converted.isprintable():
            self.refuse(path, f"`{name}` has characters that can't be printed", "remove them")
            return empty
        return converted


@cache
def _fields(kind: type[RawTable]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@cache
def _unwrap(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """The bare type, and what its Meta say (`title`, `examples`, `secret`, `min_length`)."""
    if get_origin(annotation) is not Annotated:
        return annotation, {}
    bare, *metas = get_args(annotation)
    said: dict[str, Any] = {}
    for meta in metas:
        for name in ("title", "examples", "min_length"):
            if getattr(meta, name) is not None:
                said[name] = getattr(meta, name)
        said |= meta.extra or {}
    return bare, said


def _members(kind: Any) -> list[Any]:
    """The members of a union, or the one type; None is left out because TOML has no null."""
    if get_origin(kind) in (Union, types.UnionType):
        return [member for member in get_args(kind) if member is not types.NoneType]
    return [kind]


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, RawTable)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.required:
        return _empty_of(field.type)
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def _empty_of(annotation: Any) -> Any:
    """What stands for a refused value of a required field or of an element."""
    for member in _members(_unwrap(annotation)[0]):
        kind = _unwrap(member)[0]
        if kind is str:
            return ""
        if get_origin(kind) is list:
            return []
        if _is_table(kind):
            return _empty(kind)
    return None


def _empty(kind: type[_T]) -> _T:
    return kind(**{name: _default(field) for name, field in _fields(kind).items()})


def _example(annotation: Any) -> str:
    """A right value of this type, as it is written in a file."""
    bare, meta = _unwrap(annotation)
    if meta.get("examples"):
        return json.dumps(meta["examples"][0], ensure_ascii=False)
    for member in _members(bare):
        kind, meta = _unwrap(member)
        if meta.get("examples"):
            return json.dumps(meta["examples"][0], ensure_ascii=False)
        if kind is bool:
            return "true"
        if get_origin(kind) is list:
            return f"[{_example(get_args(kind)[0])}]"
        if _is_table(kind):
            name, field = next(iter(_fields(kind).items()))
            return f"{{ {name} = {_example(field.type)} }}"
    return "…"


def _table_mend(path: TomlPath) -> str:
    return f"write [[{path[0]}]] in a line of its own for each, and its fields below"


def _shown(value: Any) -> str:
    """A value as a refusal shows it: short, on one line, and never what is inside a table or list."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(_clipped(value), ensure_ascii=False)
        case dict():
            return "a table"
        case list():
            return "a list"
        case datetime() | date():
            return value.isoformat()
        case _:
            return _clipped(str(value))


def _clipped(text: str) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
