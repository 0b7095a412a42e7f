"""Minimal instances of JSON schemas."""

from typing import Any

import pytest

from workers.simulator.schema import MAX_NODES, PLACEHOLDER, instance


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, PLACEHOLDER),
        ({"type": "string", "minLength": 3}, PLACEHOLDER * 3),
        ({"type": "string", "maxLength": 0}, ""),
        ({"type": "string", "format": "date"}, "2025-01-01"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "integer", "minimum": 1e308, "multipleOf": 1e-5}, 0),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, PLACEHOLDER),
        ({"enum": ["red", "green"]}, "red"),
        ({"const": 42}, 42),
        ({"type": "integer", "default": 9}, 9),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"prefixItems": [{"type": "integer"}, {"type": "string"}]}, [0, PLACEHOLDER]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 0}),
        ({}, None),
        (True, None),
    ],
)
def test_an_instance_is_the_smallest_value_of_its_schema(schema: Any, value: Any) -> None:
    assert instance(schema) == value


def test_only_required_members_appear_where_some_are_required() -> None:
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["city"]}
    assert instance(schema) == {"city": PLACEHOLDER}


def test_references_and_allof_are_followed() -> None:
    schema = {
        "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number"}}}},
        "allOf": [
            {"$ref": "#/$defs/place"},
            {"properties": {"name": {"type": "string"}}, "required": ["name", "x"]},
        ],
    }
    assert instance(schema) == {"x": 0, "name": PLACEHOLDER}


def test_a_linked_list_ends() -> None:
    schema = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    value: Any = instance(schema)
    depth = 0
    while value is not None:
        value, depth = value["next"], depth + 1
    assert 1 <= depth < 20


def test_a_schema_that_can_never_end_is_cut_off() -> None:
    properties = {name: {"$ref": "#"} for name in "abcdefgh"}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    assert str(instance(schema)).count("'a'") <= MAX_NODES


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}]},
        {"$ref": "#/nowhere"},
    ],
)
def test_a_circle_of_references_is_null(schema: Any) -> None:
    assert instance(schema) is None
