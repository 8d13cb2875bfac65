"""Hypothesis strategies of every record type, from the structs' own types and bounds."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as kinds

# every plane of Unicode but the surrogates, which no UTF-8 text has
_CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"))
_LONG = 2**63 - 1


def records(record: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Valid records of any content."""
    return _of(kinds.type_info(record))


def _of(kind: kinds.Type) -> st.SearchStrategy[Any]:
    match kind:
        case kinds.BoolType():
            return st.booleans()
        case kinds.NoneType():
            return st.none()
        case kinds.IntType(_, ge, lt):
            return st.integers(0 if ge is not None else -_LONG, (lt or _LONG) - 1)
        case kinds.FloatType(gt, ge, _, le):
            least = gt if gt is not None else ge
            return st.floats(least, le, allow_nan=False, allow_infinity=False, exclude_min=gt is not None)
        case kinds.StrType(min_length, max_length):
            return st.text(_CHARACTERS, min_size=min_length or 0, max_size=min(12, max_length or 12))
        case kinds.LiteralType(values):
            return st.sampled_from(values)
        case kinds.VarTupleType(item):
            return st.lists(_of(item), max_size=3).map(tuple)
        case kinds.UnionType(types):
            return st.one_of(*map(_of, types))
        case kinds.StructType(cls, fields):
            return st.builds(cls, **{field.name: _of(field.type) for field in fields})
    raise AssertionError(kind)
