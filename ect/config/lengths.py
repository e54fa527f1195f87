"""The lengths of averages of weights, as a config has them. Loads no torch."""

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from ect.config.base import distinct_list

Length = Annotated[float, Field(ge=1e-3, lt=0.2886)]
_LENGTH = {"type": "number", "minimum": 1e-3, "exclusiveMaximum": 0.2886}
_LENGTHS = {"type": "array", "items": _LENGTH, "minItems": 1, "maxItems": 8}
Lengths = distinct_list(  # a number stands for a list of one
    Length,
    Field(min_length=1, max_length=8),
    BeforeValidator(lambda value: [value] if isinstance(value, (int, float)) else value),
    PlainSerializer(lambda lengths: lengths if len(lengths) > 1 else lengths[0]),
    WithJsonSchema({"anyOf": [_LENGTH, _LENGTHS]}),
)
