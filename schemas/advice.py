"""What to send instead: msgspec says which rule a field broke, this says in words how to keep it."""

import re
from collections.abc import Mapping
from functools import cache

import msgspec
from msgspec import inspect

from schemas.event import MILLISECONDS_BELOW

_FIELD = re.compile(r"at `\$\.(\w+)`$|required field `(\w+)`$")
_PATTERN = re.compile(r"^Expected `str` matching regex .* - at `", re.DOTALL)


def told(error: msgspec.ValidationError, record_type: type[msgspec.Struct]) -> str:
    """The broken rule in a line, with what to send for that field where the type says it."""
    reason = _PATTERN.sub("Control character - at `", str(error))
    found = _FIELD.search(reason)
    advice = _advice(record_type).get(found[1] or found[2]) if found else None
    return f"{reason}: send {advice}" if advice else reason


@cache
def _advice(record_type: type[msgspec.Struct]) -> Mapping[str, str]:
    info = inspect.type_info(record_type)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: _allowed(field.type) for field in info.fields}


def _allowed(kind: inspect.Type) -> str:
    """What a field of this type takes, in words; empty where msgspec's own message says all there is."""
    match kind:
        case inspect.UnionType(types=types):
            return next((text for member in types if (text := _allowed(member))), "")
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case inspect.IntType(lt=bound) if bound == MILLISECONDS_BELOW:
            return "milliseconds since 1970, UTC, as a whole number"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType(max_length=longest, min_length=shortest, pattern=pattern) if longest:
            return f"{shortest or 0} to {longest} characters" + (", none a control character" if pattern else "")
    return ""
