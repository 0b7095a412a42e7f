"""docs/configuration.md has every field of the catalog and every setting, with its default."""

import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import FieldInfo
from pydantic import SecretStr

from shared import document, function, timeouts, variant
from shared.account import RateLimits
from shared.catalog import Catalog
from shared.document import Document
from shared.price import LongContext, Price, SeedPrice
from shared.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()

NONE = "\N{EN DASH}"

HEADINGS: dict[type[msgspec.Struct], str] = {
    document.Auth: "`[auth]`",
    document.QueueLimits: "`[queue]`",
    document.Compat: "`[compat]`",
    document.Dryrun: "`[dryrun]`",
    document.Limits: "`[limits]`",
    RateLimits: "`limits` of users and models",
    document.CacheBounds: "`[cache]`",
    document.Attestation: "`[attestation]`",
    document.Metrics: "`[metrics]`",
    document.Scanner: "`[scanner]`",
    document.Provider: "`[providers.<name>]`",
    timeouts.Timeouts: "`timeouts`",
    timeouts.Retries: "`retries`",
    document.Breaker: "`breaker`",
    document.Model: "`[models.<name>]`",
    document.ModelProvider: "`providers` of a model",
    function.Function: "`[functions.<name>]`",
    variant.Variant: "`variants` of a function",
    variant.Aggregator: "`evaluator` and `fuser` of a variant",
    Price: "`price`",
    LongContext: "`long_context` of a price",
    SeedPrice: '`[pricing."<model>"]`',
    document.DetectionRule: "`[[detection]]`",
}


def tables(struct: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """Every table a document may hold, however deep."""
    for field in msgspec.structs.fields(struct):
        pending = [field.type]
        while pending:
            kind = pending.pop()
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                yield kind
                yield from tables(kind)
            pending += getattr(kind, "__args__", ())


def section(heading: str) -> str:
    _, found, rest = PAGE.partition(f"\n### {heading}\n")
    assert found, f"there is no section {heading}"
    return rest.partition("\n#")[0]


def default_of(field: FieldInfo) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def shown(value: Any) -> str:
    """A default as the page writes it."""
    match value:
        case msgspec.Struct():
            return "see below"
        case None:
            return NONE
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case dict() if not value:
            return "`{}`"
        case tuple() | list():
            return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
        case int() | float() | Decimal():
            return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
        case _:
            raise AssertionError(f"a default the page has no words for: {value!r}")


def test_every_table_of_the_catalog_has_a_section() -> None:
    assert set(tables(Document)) == set(HEADINGS)


@pytest.mark.parametrize("struct", HEADINGS, ids=lambda struct: struct.__name__)
def test_every_field_of_the_catalog_is_listed_with_its_default(
    struct: type[msgspec.Struct],
) -> None:
    text = section(HEADINGS[struct])
    for field in msgspec.structs.fields(struct):
        default = "required" if field.required else shown(default_of(field))
        assert f"\n| `{field.encode_name}` | {default} |" in text
    assert text.count("\n| `") == len(struct.__struct_fields__), "a field that is no more"


def test_every_setting_is_listed_with_its_default() -> None:
    text = PAGE.partition("\n## Environment variables\n")[2].partition("\n## ")[0]
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias or f"GATEWAY_{name.upper()}"
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, bool):
            default = str(default).lower()
        text_of_it = NONE if default in (None, "") else f"`{default}`".replace(".0`", "`")
        assert f"\n| `{variable}` | {text_of_it} |" in text
    assert text.count("\n| `") == len(Settings.model_fields), "a variable that is no more"


def test_the_example_is_a_catalog() -> None:
    example = PAGE.partition("```toml\n")[2].partition("```")[0]
    assert tomllib.loads(example)
    price = Catalog.from_toml(example).document.models["gpt_small"].price
    assert price is not None
    assert price.input == Decimal("0.5")
