"""What is asked for when a call is to be proved, and what of the answers is kept."""

import base64
import json
from collections.abc import Mapping

import pytest
from typing_extensions import override

from shared.clock import StillClock
from workers.attestation.collateral import Collaterals
from workers.attestation.fetcher import EvidenceAway, Fetched, Fetcher
from workers.attestation.nras import Nras, key_ids, only
from workers.attestation.provider import AttestedProvider


class Recorded(Fetcher):
    """A fetcher with answers by the end of their paths."""

    def __init__(self, answers: Mapping[str, Fetched]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    @override
    async def get(self, url, *, params=None, key=None, most_bytes=0):
        self.asked.append((url, params or {}))
        for ending, answer in self.answers.items():
            if url.endswith(ending):
                return answer
        return Fetched(404, b"", {})

    @override
    async def post(self, url, body):
        return await self.get(url)


def answer(text: str | bytes, **headers: str) -> Fetched:
    body = text.encode() if isinstance(text, str) else text
    return Fetched(200, body, {name.replace("_", "-"): value for name, value in headers.items()})


def provider(answers: Mapping[str, Fetched]) -> tuple[AttestedProvider, Recorded]:
    fetcher = Recorded(answers)
    return AttestedProvider(fetcher, base_url="https://near.example/v1/", api_key="k"), fetcher


NONCE = "ab" * 32
PCCS = "https://pccs.example"


# ---- providers


async def test_a_report_is_asked_for_with_our_nonce_and_a_named_algorithm():
    asked, fetcher = provider({"/attestation/report": answer("{}")})
    await asked.report("openai/gpt", nonce=NONCE, signer="", may_be_aci=False)
    [(url, params)] = fetcher.asked
    assert url == "https://near.example/v1/attestation/report"
    assert params == {
        "model": "openai/gpt", "signing_algo": "ecdsa", "nonce": NONCE,
        "include_tls_fingerprint": "true",
    }  # fmt: skip


async def test_a_signer_is_asked_for_as_its_algorithm_writes_it():
    asked, fetcher = provider({"/attestation/report": answer("{}")})
    for signer in ("cd" * 20, "cd" * 32):
        await asked.report("m", nonce=NONCE, signer=signer, may_be_aci=False)
    found = [params["signing_address"] for _, params in fetcher.asked]
    assert found == ["0x" + "cd" * 20, "cd" * 32]


async def test_who_does_not_speak_aci_is_asked_once_whether_he_does():
    asked, fetcher = provider({"/attestation/report": answer("{}")})
    for _ in range(2):
        await asked.report("m", nonce=NONCE, signer="", may_be_aci=True)
    paths = [url.removeprefix("https://near.example/v1") for url, _ in fetcher.asked]
    assert paths == ["/aci/attestation", "/attestation/report", "/attestation/report"]


async def test_who_speaks_aci_is_asked_for_his_own_report():
    asked, fetcher = provider({"/aci/attestation": answer('{"api_version":"aci/1"}')})
    found = await asked.report("m", nonce=NONCE, signer="", may_be_aci=True)
    assert found.text == '{"api_version":"aci/1"}'
    assert [params for _, params in fetcher.asked] == [{"nonce": NONCE}]


async def test_a_signature_that_is_not_there_yet_is_none():
    asked, _ = provider({})
    assert await asked.signature("chatcmpl-1", "m") is None


async def test_the_id_of_an_answer_cannot_lead_to_another_path():
    asked, fetcher = provider({})
    await asked.signature("../../v1/models?x=/#", "m")
    [(url, _)] = fetcher.asked
    assert url == "https://near.example/v1/signature/..%2F..%2Fv1%2Fmodels%3Fx%3D%2F%23"


@pytest.mark.parametrize("given", ["", ".", "..", "x" * 201])
async def test_what_is_no_id_is_not_asked_for(given: str):
    asked, fetcher = provider({})
    with pytest.raises(EvidenceAway):
        await asked.signature(given, "m")
    assert fetcher.asked == []


# ---- collateral

TCB = '{"tcbInfo":{"id":"TDX" , "version":3},"signature":"aa"}'
QE = '{"signature":"bb","enclaveIdentity":{ "id":"TD_QE"}}'
DER = b"\x30\x82\x01\x02crl"


def services(root: bytes = DER) -> dict[str, Fetched]:
    chain = "-----BEGIN%20CERTIFICATE-----"
    return {
        "/tdx/certification/v4/tcb": answer(TCB, tcb_info_issuer_chain=chain),
        "/tdx/certification/v4/qe/identity": answer(QE, sgx_enclave_identity_issuer_chain=chain),
        "/sgx/certification/v4/pckcrl": answer(DER, sgx_pck_crl_issuer_chain=chain),
        "/sgx/certification/v4/rootcacrl": answer(root),
    }


async def test_signed_objects_are_kept_as_they_were_written():
    fetcher = Recorded(services())
    text = await Collaterals(fetcher, StillClock()).get(PCCS, "90C06F000000/platform")
    kept = json.loads(text)
    assert kept["tcb_info"] == '{"id":"TDX" , "version":3}'
    assert kept["qe_identity"] == '{ "id":"TD_QE"}'
    assert (kept["tcb_info_signature"], kept["qe_identity_signature"]) == ("aa", "bb")
    assert kept["pck_crl"] == DER.hex()
    assert kept["tcb_info_issuer_chain"] == "-----BEGIN CERTIFICATE-----"


async def test_a_list_may_come_as_hex():
    fetcher = Recorded(services(root=b"3082ABCD"))
    text = await Collaterals(fetcher, StillClock()).get(PCCS, "90C06F000000/platform")
    assert json.loads(text)["root_ca_crl"] == "3082abcd"


async def test_collateral_is_fetched_once_a_day_and_outlives_an_outage():
    fetcher, clock = Recorded(services()), StillClock()
    collaterals = Collaterals(fetcher, clock)
    first = await collaterals.get(PCCS, "90C06F000000/platform")
    assert await collaterals.get(PCCS, "90C06F000000/platform") == first
    assert len(fetcher.asked) == 4
    clock.advance(86_401)
    fetcher.answers = {}
    assert await collaterals.get(PCCS, "90C06F000000/platform") == first


@pytest.mark.parametrize("key", ["", "90C06F000000", "90C06F000000/../x", "zz/platform"])
async def test_what_names_no_platform_is_not_asked_for(key: str):
    fetcher = Recorded(services())
    with pytest.raises(EvidenceAway):
        await Collaterals(fetcher, StillClock()).get(PCCS, key)
    assert fetcher.asked == []


# ---- NRAS


def token(kid: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "ES384", "kid": kid}).encode())
    return head.decode().rstrip("=") + ".e30.c2ln"


def jwks(*kids: str) -> str:
    return json.dumps({"keys": [{"kid": kid, "kty": "EC"} for kid in kids]})


ANSWER = json.dumps([["JWT", token("a")], {"GPU-0": token("b")}])


def test_the_keys_that_tokens_name_are_found_and_kept_alone():
    assert key_ids(ANSWER) == {"a", "b"}
    assert json.loads(only(jwks("a", "b", "c"), key_ids(ANSWER)))["keys"] == [
        {"kid": "a", "kty": "EC"},
        {"kid": "b", "kty": "EC"},
    ]


async def test_keys_are_fetched_again_when_a_token_names_a_new_one():
    fetcher = Recorded({"/v3/attest/gpu": answer(ANSWER), "/jwks.json": answer(jwks("old"))})
    nras = Nras(fetcher, StillClock())
    _, kept = await nras.attest("https://nras.example", "{}")
    assert json.loads(kept) == {"keys": []}
    fetcher.answers = {**fetcher.answers, "/jwks.json": answer(jwks("a", "b", "old"))}
    _, kept = await nras.attest("https://nras.example", "{}")
    assert {one["kid"] for one in json.loads(kept)["keys"]} == {"a", "b"}
