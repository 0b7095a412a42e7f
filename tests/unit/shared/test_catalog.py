"""The catalog: what it accepts, what it refuses and why, and how names resolve in it."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

import shared
from shared.caller import AttestationWish
from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.document import seed_prices
from shared.price import Price

SIM = """
[providers.sim]
base_url = "http://sim/v1"
api_key_env = "KEY"
[providers.near]
type = "near"
base_url = "http://near/v1"
api_key_env = "KEY"
[models.echo]
providers = [{ provider = "sim", upstream_model = "sim/echo" }]
[models.off]
active = false
providers = [{ provider = "sim", upstream_model = "sim/off" }]
[[detection]]
pattern = "gpt-*"
provider = "sim"
"""


ATTESTED = (
    SIM.replace("{", "{{").replace("}", "}}")
    + """
[providers.vercel]
type = "vercel"
base_url = "http://vercel/v1"
[models.t]
tier = "{}"
providers = [{{ provider = "{}", upstream_model = "y" }}]
{}
"""
)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog.from_toml(SIM)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[providers.p]\nbase_url = = 1", "line 2"),
        ("[providers.p]\ntypo = 1", "providers.p.typo"),
        ("[providers.p]\nattestation_shapes = ['near']", "providers...*attestation_shapes"),
        ("[queue]\nlane_capacity = 'many'", "queue.lane_capacity"),
        ("[models.m]\nproviders = []", "models.m"),
        ("[models.m]\nproviders = [{ provider = 'x', upstream_model = 'y' }]", "no provider 'x'"),
        ("[queue]\nmax_spend_backlog = 10", "max_spend_backlog"),
        ("[cache]\nttl_seconds = 0", "cache.ttl_seconds"),
        ("[cache]\nttl_seconds = 1e9", "cache.ttl_seconds"),
        ("[cache]\nmax_entry_bytes = 0", "cache.max_entry_bytes"),
        ("[cache]\nmax_entry_bytes = 300_000_000\nmax_bytes = 1", "cache.max_entry_bytes"),
        ("[cache]\nmax_bytes = 1000", "cache.max_bytes"),
        ("[queue]\nmax_receipt_backlog = 0", "max_receipt_backlog"),
        ("[attestation]\ndrain_seconds = 0", "attestation.drain_seconds"),
        ("[attestation]\npccs_url = 'pccs'", "attestation.pccs_url"),
        ("[attestation]\nnras_url = 'ftp://nras'", "attestation.nras_url"),
        ("[attestation]\nallowed_tcb = ['Revoked']", "attestation.allowed_tcb: 'Revoked'"),
        ("[attestation]\nallowed_tcb = []", "attestation.allowed_tcb"),
        ("[attestation]\ndemoted = ['tcb_status']", "attestation.demoted: 'tcb_status'"),
        (ATTESTED.format("", "sim", "attestation = 'require'"), "models.t.attestation"),
        (ATTESTED.format("", "sim", "attestation = 'record'"), "models.t.attestation"),
        (ATTESTED.format("ZDR", "vercel", "attestation = 'require'"), "models.t.attestation"),
        (ATTESTED.format("TEE", "near", "attestation = 'always'"), "models...*attestation"),
        (ATTESTED.format("TEE", "near", "compose_hashes = ['abc']"), "models.t.compose_hashes"),
        (ATTESTED.format("TEE", "near", "os_images = ['xyz']"), "models.t.os_images"),
        (ATTESTED.format("TEE", "near", "os_images = ['ab']"), "models.t.os_images"),
        (
            ATTESTED.format("TEE", "near", "attestation = 'require'")
            + "[attestation]\nreceipts = false",
            "attestation.receipts",
        ),
        (
            SIM + "[models.t]\ntier = 'TEE'\n"
            "providers = [{ provider = 'sim', upstream_model = 'y' }]",
            "not of tier TEE",
        ),
        (
            SIM + "[models.t]\nproviders = [{ provider = 'sim', upstream_model = 'y', prise = 1 }]",
            "models.t.providers.0.prise",
        ),
    ],
)
def test_a_bad_catalog_is_refused_with_the_place_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(CatalogInvalid, match=reason):
        Catalog.from_toml(text)


def test_a_snapshot_of_another_release_is_read_all_the_same(catalog: Catalog) -> None:
    document = msgspec.json.decode(catalog.to_json())
    document["later"] = 1
    document["providers"]["sim"]["later"] = 2
    assert Catalog.from_json(msgspec.json.encode(document)).hash == catalog.hash


def test_the_hash_names_the_meaning_not_the_text(catalog: Catalog) -> None:
    assert Catalog.from_toml("# a comment\n" + SIM).hash == catalog.hash
    assert Catalog.from_toml(SIM.replace("sim/echo", "sim/other")).hash != catalog.hash
    assert Catalog.from_json(catalog.to_json()).hash == catalog.hash


@pytest.mark.parametrize(
    ("selector", "name", "pinned"),
    [
        ("echo", "echo", None),
        ("ollm::model_name::echo", "echo", None),
        ("sim:any/model", "sim:any/model", "sim"),
        ("sim/any:model", "sim:any:model", "sim"),
        ("gpt-4o", "sim:gpt-4o", "sim"),
    ],
)
def test_a_selector_resolves(
    catalog: Catalog, selector: str, name: str, pinned: str | None
) -> None:
    target = catalog.resolve(selector)
    assert target is not None
    assert (target.name, target.pinned_provider) == (name, pinned)


@pytest.mark.parametrize(
    "selector",
    [
        "",
        "off",
        "nothing",
        "nobody:model",
        "sim:",
        "ollm::model_name::gpt-4o",
        "ollm::model_name::",
    ],
)
def test_a_selector_that_names_nothing_resolves_to_nothing(catalog: Catalog, selector: str) -> None:
    assert catalog.resolve(selector) is None


def test_the_default_catalog_is_sound_and_holds_the_simulators_models() -> None:
    default = Catalog.from_toml((Path(shared.__file__).parent / "gateway.toml").read_text())
    for name, tier in {
        "sim_echo": "",
        "near_sim_chat": "TEE",
        "phala_sim_chat": "TEE",
        "vercel_sim_chat": "ZDR",
    }.items():
        target = default.resolve(name)
        assert target is not None
        assert target.model.tier == tier


@pytest.mark.parametrize(
    "price", ["{ input = -1 }", "{ second = nan }", "{ image = { big = -0.1 } }"]
)
def test_a_price_that_is_none_is_refused_with_its_path(price: str) -> None:
    text = f"""
        [providers.p]
        base_url = "http://p/v1"
        [models.m]
        price = {price}
        providers = [{{ provider = "p", upstream_model = "m" }}]
    """
    with pytest.raises(CatalogInvalid, match=r"models\.m\.price"):
        Catalog.from_toml(text)


def test_a_body_must_fit_into_half_of_what_may_be_sealed() -> None:
    with pytest.raises(CatalogInvalid, match="max_sealed_bytes"):
        Catalog.from_toml("[queue]\nmax_sealed_bytes = 1000\n[limits]\nmax_body_bytes = 501")


SEEDED = """
[providers.openai]
[models.m]
providers = [{ provider = "openai", upstream_model = "m" }]
[pricing."%s"]
input_price_per_million = %s
output_price_per_million = 2
effective_at = 2026-01-01T00:00:00
"""


@pytest.mark.parametrize(
    ("given", "key"), [("m", "m"), ("OpenAI/gpt", "openai:gpt"), ("openai:a/b", "openai:a/b")]
)
def test_a_first_price_is_kept_under_a_models_name_or_its_providers(given: str, key: str) -> None:
    (found,) = seed_prices(Catalog.from_toml(SEEDED % (given, "0.15")).document).items()
    assert found[0] == key
    assert found[1].price == Price(Decimal("0.15"), Decimal(2))
    assert found[1].effective_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "amount", "reason"),
    [
        ("near:m", "1", "Cannot set pricing for model 'near:m': provider 'near' is not configured in"
            " the providers section"),
        ("other", "1", "pricing.other: there is no such model"),
        ("m", "-1", "pricing.m: an amount is negative or not a number"),
        ("m", "1000000", "pricing.m: an amount is above 999999"),
    ],
)  # fmt: skip
def test_a_first_price_of_nobody_or_of_no_sense_is_refused(given: str, amount: str, reason: str):
    with pytest.raises(CatalogInvalid, match=reason):
        Catalog.from_toml(SEEDED % (given, amount))


def test_a_first_price_survives_the_snapshot() -> None:
    catalog = Catalog.from_toml(SEEDED % ("m", "0.15"))
    assert Catalog.from_json(catalog.to_json()).document == catalog.document


MODES = (
    SIM
    + """
[models.tee]
tier = "TEE"
providers = [{ provider = "near", upstream_model = "t" }]
[models.strict]
tier = "TEE"
attestation = "require"
providers = [{ provider = "near", upstream_model = "s" }]
[models.silent]
tier = "TEE"
attestation = "off"
providers = [{ provider = "near", upstream_model = "n" }]
"""
)


@pytest.mark.parametrize(
    ("models", "wish", "mode"),
    [
        (["echo"], None, "off"),
        (["echo"], "record", "off"),
        (["echo"], "require", "require"),
        (["tee"], None, "record"),
        (["tee"], "require", "require"),
        (["strict"], "record", "require"),
        (["silent"], None, "off"),
        (["silent"], "record", "record"),
        (["silent", "tee"], None, "record"),
        (["tee", "strict"], None, "require"),
    ],
)
def test_the_strictest_of_models_and_key_decides_about_attestation(
    models: list[str], wish: AttestationWish | None, mode: str
) -> None:
    document = Catalog.from_toml(MODES).document
    assert document.attestation_of([document.models[name] for name in models], wish) == mode


def test_without_receipts_only_what_is_required_stays() -> None:
    text = MODES.replace('"require"', '"record"') + "[attestation]\nreceipts = false"
    document = Catalog.from_toml(text).document
    assert document.attestation_of([document.models["tee"]], "record") == "off"
    assert document.attestation_of([document.models["tee"]], "require") == "require"
