"""Makes a minimal instance of a JSON schema: the answer to `json_schema` and to tools."""

import math
from collections.abc import Mapping, Sequence

Schema = Mapping[str, object]

MAX_NODES = 2_000  # a schema that branches and recurses would otherwise never end
MAX_DEPTH = 32  # far below the interpreter's own limit; nobody nests an answer deeper
SHALLOW_DEPTH = 6  # below it, optional members and recursive branches are left out
PLACEHOLDER = "…"
FORMATS = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "sim@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


def instance(schema: object) -> object:
    """The smallest value of the shape the schema describes.

    Knows type, enum, const, default, properties, required, items, prefixItems, the bounds of
    strings, numbers and arrays, anyOf, oneOf, allOf and local `$ref`; not patterns.
    """
    return _Maker(schema if isinstance(schema, Mapping) else {}).make(schema, depth=0)


class _Maker:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._nodes_left = MAX_NODES

    def make(self, schema: object, *, depth: int) -> object:
        if not isinstance(schema, Mapping) or self._exhausted(depth=depth):
            return None
        schema = self._resolved(schema, depth=depth)
        for keyword in ("const", "default"):
            if keyword in schema:
                return schema[keyword]
        if options := _list(schema, "enum"):
            return options[0]
        return self._typed(schema, depth=depth)

    def _exhausted(self, *, depth: int) -> bool:
        self._nodes_left -= 1
        return self._nodes_left < 0 or depth > MAX_DEPTH

    def _resolved(self, schema: Schema, *, depth: int) -> Schema:
        """The schema without references and choices."""
        for _ in range(32):  # a chain of references longer than this is a circle
            if isinstance(reference := schema.get("$ref"), str):
                schema = self._lookup(reference)
            elif options := _list(schema, "anyOf") or _list(schema, "oneOf"):
                chosen = _choice(options, shallow=depth > SHALLOW_DEPTH)
                schema = {**_without(schema, "anyOf", "oneOf"), **chosen}
            elif parts := _list(schema, "allOf"):
                schema = self._merged(_without(schema, "allOf"), parts, depth=depth + 1)
            else:
                return schema
        return {"type": "null"}

    def _lookup(self, reference: str) -> Schema:
        node: object = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if key:
                node = node.get(key) if isinstance(node, Mapping) else None
        return node if isinstance(node, Mapping) else {"type": "null"}

    def _merged(self, base: Schema, parts: Sequence[object], *, depth: int) -> Schema:
        merged: dict[str, object] = dict(base)
        properties = dict(_mapping(base, "properties"))
        required = [*_list(base, "required")]
        for part in parts:
            if not isinstance(part, Mapping) or self._exhausted(depth=depth):
                continue
            resolved = self._resolved(part, depth=depth)
            merged.update(resolved)
            properties.update(_mapping(resolved, "properties"))
            required.extend(_list(resolved, "required"))
        if properties:
            merged |= {"type": "object", "properties": properties, "required": required}
        return merged

    def _typed(self, schema: Schema, *, depth: int) -> object:
        match _type(schema):
            case "object":
                return self._object(schema, depth=depth)
            case "array":
                return self._array(schema, depth=depth)
            case "string":
                return _string(schema)
            case "integer":
                return int(_number(schema))
            case "number":
                return _number(schema)
            case "boolean":
                return False
            case _:
                return None

    def _object(self, schema: Schema, *, depth: int) -> dict[str, object]:
        properties = _mapping(schema, "properties")
        required = _list(schema, "required")
        # A schema that requires nothing is filled all the same: an empty object shows nothing.
        everything = not required and depth <= SHALLOW_DEPTH
        names = properties if everything else [name for name in properties if name in required]
        return {name: self.make(properties[name], depth=depth + 1) for name in names}

    def _array(self, schema: Schema, *, depth: int) -> list[object]:
        if fixed := _list(schema, "prefixItems"):
            return [self.make(item, depth=depth + 1) for item in fixed]
        least = schema.get("minItems")
        count = min(least, MAX_NODES) if isinstance(least, int) else 0
        return [self.make(schema.get("items"), depth=depth + 1) for _ in range(count)]


def _type(schema: Schema) -> object:
    declared = schema.get("type")
    if isinstance(declared, Sequence) and not isinstance(declared, str):
        declared = next(iter(declared), None)
    if declared is None and "properties" in schema:
        return "object"
    if declared is None and ("items" in schema or "prefixItems" in schema):
        return "array"
    return declared


def _string(schema: Schema) -> str:
    text = FORMATS.get(str(schema.get("format")), PLACEHOLDER)
    shortest, longest = schema.get("minLength"), schema.get("maxLength")
    if isinstance(shortest, int):
        text = text.ljust(min(shortest, MAX_NODES), PLACEHOLDER)
    return text[:longest] if isinstance(longest, int) else text


def _number(schema: Schema) -> int | float:
    """Zero, or the nearest number the bounds allow."""
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf")
    unit = step if isinstance(step, int | float) and step > 0 else 1
    lowest = above + unit if isinstance(above, int | float) else schema.get("minimum")
    highest = below - unit if isinstance(below, int | float) else schema.get("maximum")
    value: int | float = 0
    if isinstance(lowest, int | float):
        value = max(value, -(-lowest // unit) * unit)
    if isinstance(highest, int | float):
        value = min(value, highest // unit * unit)
    return value if math.isfinite(value) else 0


def _choice(options: Sequence[object], *, shallow: bool) -> Schema:
    schemas = [option for option in options if isinstance(option, Mapping)]
    if shallow:
        nulls = [option for option in schemas if option.get("type") == "null"]
        schemas = nulls or schemas[-1:]
    return schemas[0] if schemas else {}


def _without(schema: Schema, *names: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in names}


def _list(schema: Schema, name: str) -> Sequence[object]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _mapping(schema: Schema, name: str) -> Schema:
    value = schema.get(name)
    return value if isinstance(value, Mapping) else {}
