"""The review of a catalog's change: each member on a line of its own."""

from api.cli.catalog_diff import differences
from shared.catalog import Catalog

OLD = """
[providers.p]
type = "openai"
base_url = "https://p/v1"
[models.kept]
price = { input = 0.5, output = 1.5 }
providers = [{ provider = "p", upstream_model = "kept" }]
[models.gone]
providers = [{ provider = "p", upstream_model = "gone" }]
"""
NEW = """
[auth]
mode = "open"
[providers.p]
type = "openai"
base_url = "https://p/v1"
[models.kept]
price = { input = 0.6, output = 1.5 }
providers = [{ provider = "p", upstream_model = "kept" }]
[models.added]
tier = ""
providers = [{ provider = "p", upstream_model = "added" }]
"""


def test_every_change_is_a_line_with_its_path() -> None:
    lines = differences(Catalog.from_toml(OLD), Catalog.from_toml(NEW))
    assert lines[0] == '~ auth.mode: "required" -> "open"'
    assert lines[1].startswith("+ models.added = { ")
    assert 'upstream_model = "added"' in lines[1]
    assert lines[2] == "- models.gone"
    assert lines[3] == '~ models.kept.price.input: "0.5" -> "0.6"'
    assert len(lines) == 4


def test_the_same_catalog_has_no_differences() -> None:
    assert differences(Catalog.from_toml(OLD), Catalog.from_toml(OLD)) == []
