"""What is accepted of a target: an operator's word on all, on the model, and on who serves it."""

from shared.attestation.policy import Policy
from tests.catalogs import a_catalog
from workers.attestation.target import policy_of


def policy(**of_the_provider: object) -> Policy:
    providers = {"p": {"type": "near", "base_url": "http://p/v1", **of_the_provider}}
    route = {"provider": "p", "upstream_model": "m"}
    document = a_catalog(providers, {"m": {"providers": [route], "tier": "TEE"}}).document
    return policy_of(document, document.providers["p"], document.models["m"])


def test_a_provider_may_have_to_prove_itself_in_one_form():
    assert policy(attestation_shapes=["near-direct"]) == Policy(shapes=("near-direct",))


def test_a_provider_may_have_to_attest_its_tls_key():
    assert policy() == Policy()
    assert policy(tls_key_required=True) == Policy(tls_key_required=True)
