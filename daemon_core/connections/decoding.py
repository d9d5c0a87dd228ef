"""Decoding of what a server says: unknown fields pass, null stands for absent, a wrong type is an error.

msgspec takes null only where the type allows it, the protocol takes it wherever a field may be absent
(as the protocol allows). So an answer that does not fit is decoded once more without its nulls; fields typed
``Any`` are left as they are, since inside them null is content.
"""

from __future__ import annotations

import types
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")


def decode(data: bytes, kind: type[T]) -> T:
    """``data`` as ``kind``.

    Raises:
        msgspec.DecodeError: not JSON, or (``msgspec.ValidationError``) JSON of another shape. The text names
            the place, never the content.
    """
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            return msgspec.convert(_without_nulls(msgspec.json.decode(data), kind), type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError("not UTF-8") from error
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error


def _without_nulls(value: Any, kind: Any) -> Any:
    if isinstance(value, dict) and (struct := _struct_of(kind)) is not None:
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
        return {
            key: _without_nulls(item, fields[key]) if key in fields else item
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        for part in _alternatives(kind):
            if get_origin(part) is list:
                (of,) = get_args(part)
                return [_without_nulls(item, of) for item in value]
    return value


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:
    for part in _alternatives(kind):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None
