"""NVIDIA's tokens count when NVIDIA signed them, about our nonce, now, and about as many GPUs."""

import base64
import json
import random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.attestation.factor import Factor
from shared.attestation.nras import check_nras
from shared.attestation.roots import PRODUCTION
from tests.unit.attestation.gpu_mint import NONCE, NOW, Answer, Maker, certificate, p384
from tests.vectors import vector

MAKER = Maker()
HONEST = Answer(MAKER)


def check(text: str, *, keys: str = "", now: float = NOW, gpus: int = 2) -> Factor:
    factor = check_nras(text, keys or MAKER.keys, NONCE, gpus, now, MAKER.roots)
    assert (factor.name, factor.source) == ("gpu_measurements", "nras")
    return factor


def test_an_honest_answer_passes_and_says_what_it_is_about():
    assert check(HONEST.text).status == "pass"
    assert "2 GPUs (GH100)" in check(HONEST.text).detail


@pytest.mark.parametrize(("text", "keys"), [("", ""), ("", "{}"), (HONEST.text, "")])
def test_what_was_not_obtained_is_unknown(text: str, keys: str):
    assert check_nras(text, keys, NONCE, 2, NOW, MAKER.roots).status == "unknown"


def test_an_answer_about_no_gpu_says_so():
    found = check(json.dumps([["JWT", "token"], {}]), gpus=0)
    assert (found.status, found.detail) == ("fail", "the report has no GPU that it could be about")


def test_without_a_nonce_of_ours_it_is_unknown():
    assert check_nras(HONEST.text, MAKER.keys, "", 2, NOW, MAKER.roots).status == "unknown"


@pytest.mark.parametrize("claims", [
    {"iss": "https://nras.example"}, {"iss": ""}, {"eat_nonce": "77" * 32}, {"eat_nonce": 7},
    {"nbf": int(NOW) + 1}, {"exp": int(NOW) - 1}, {"exp": True}, {"nbf": True},
    {"nbf": str(int(NOW))}, {"exp": float("nan")}, {"nbf": float("nan")}, {"exp": None},
])  # fmt: skip
def test_each_token_has_the_right_issuer_nonce_and_times(claims: dict[str, Any]):
    assert check(HONEST.but(claims=claims).text).status == "fail"
    assert check(HONEST.but(gpu_claims=claims).text).status == "fail"


@pytest.mark.parametrize("word", [False, "true", 1, None, "success"])
def test_the_overall_result_is_the_boolean_true(word: Any):
    answer = HONEST.but(claims={"x-nvidia-overall-att-result": word})
    assert check(answer.text).status == "fail"


@pytest.mark.parametrize("claims", [
    {"measres": "fail"}, {"measres": True}, {"dbgstat": "enabled"}, {"dbgstat": None},
    {"secboot": False}, {"secboot": "true"}, {"hwmodel": ""}, {"hwmodel": 1},
])  # fmt: skip
def test_each_gpu_must_measure_right(claims: dict[str, Any]):
    assert check(HONEST.but(gpu_claims=claims).text).status == "fail"


def test_times_hold_to_the_second():
    assert check(HONEST.text, now=NOW + 3600).status == "pass"
    assert check(HONEST.text, now=NOW + 3601).status == "fail"
    assert check(HONEST.text, now=NOW - 1).status == "fail"


@pytest.mark.parametrize("gpus", [0, 1, 3])
def test_it_must_be_about_as_many_gpus_as_the_report(gpus: int):
    assert check(HONEST.text, gpus=gpus).status == "fail"


def test_an_answer_about_no_gpu_never_passes():
    assert check(HONEST.but(gpus=0).text, gpus=0).status == "fail"


def test_tokens_that_nobody_signed_are_refused():
    answer = Answer(MAKER, algorithm="none", key="")
    factor = check(answer.text)
    assert factor.status == "fail"
    assert factor.detail == "the overall token is not signed with ES384"


def test_a_public_key_is_no_shared_secret():
    answer = Answer(MAKER, algorithm="HS384", key="k" * 64)
    assert check(answer.text).status == "fail"


def test_a_token_of_another_signer_is_refused():
    assert check(HONEST.but(key=p384()).text).status == "fail"


@pytest.mark.parametrize("headers", [{}, {"kid": "kid-2"}, {"kid": ""}])
def test_the_key_is_the_one_that_the_token_names(headers: dict[str, str]):
    assert check(HONEST.but(headers=headers).text).status == "fail"


def test_a_name_of_two_keys_names_none():
    keys = json.loads(MAKER.keys)["keys"]
    assert check(HONEST.text, keys=json.dumps({"keys": keys * 2})).status == "fail"


@pytest.mark.parametrize("change", [
    {"crv": "P-256"}, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}, {"x": "AAAA"}, {"y": 7},
    {"x": "AAAA" * 16}, {"x5c": ["junk"]}, {"x5c": [7]}, {"x5c": [""]},
])  # fmt: skip
def test_a_key_that_is_none_is_refused(change: dict[str, Any]):
    key = json.loads(MAKER.keys)["keys"][0] | change
    assert check(HONEST.text, keys=json.dumps({"keys": [key]})).status == "fail"


@pytest.mark.parametrize("keys", ["junk", "[]", '{"keys": 7}', '{"keys": [7, null]}', "[" * 99_999])
def test_keys_that_cannot_be_read_are_refused(keys: str):
    assert check(HONEST.text, keys=keys).status == "fail"


def with_certificate(of: x509.Certificate) -> str:
    der = base64.b64encode(of.public_bytes(Encoding.DER)).decode()
    return json.dumps({"keys": [json.loads(MAKER.keys)["keys"][0] | {"x5c": [der]}]})


def test_a_certificate_beside_the_key_is_told_and_must_be_the_keys():
    issuer = ("middle", MAKER.middle_key)
    right = certificate("nras", MAKER.nras_key, issuer, ca=False)
    assert "has a certificate" in check(HONEST.text, keys=with_certificate(right)).detail
    assert check(HONEST.text, keys=with_certificate(MAKER.root)).status == "fail"


def _without_the_last(tokens: dict[str, str]) -> dict[str, str]:
    return {"GPU-0": tokens["GPU-0"]}


def _swapped(tokens: dict[str, str]) -> dict[str, str]:
    return {"GPU-0": tokens["GPU-1"], "GPU-1": tokens["GPU-0"]}


def _twice(tokens: dict[str, str]) -> dict[str, str]:
    return {"GPU-0": tokens["GPU-0"], "GPU-1": tokens["GPU-0"]}


def _renamed(tokens: dict[str, str]) -> dict[str, str]:
    return {"GPU-0": tokens["GPU-0"], "GPU-2": tokens["GPU-1"]}


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("change", [_without_the_last, _swapped, _twice, _renamed])
def test_the_overall_token_is_about_these_tokens_and_no_others(change: Any, gpus: int):
    assert check(HONEST.with_tokens(change), gpus=gpus).status == "fail"


def test_one_gpu_told_twice_is_refused_even_where_it_is_signed_so():
    answer = HONEST.but(gpu_claims={"jti": "same"})
    answer.tokens["GPU-1"] = answer.tokens["GPU-0"]
    assert check(answer.text).detail == "one GPU is told twice"


@pytest.mark.parametrize("text", [
    "junk", "{}", "[]", "null", '[["JWT", "a.b.c"], {}]', '[["JWT", 7], {"GPU-0": "a.b.c"}]',
    '[["JWT", "a.b.c"], {"GPU-0": 7}]', '[["JWT", ""], {"GPU-0": ""}]', "[" * 99_999,
    '[["JWT", "a.b.c", 1], {"GPU-0": "a.b.c"}]', '[["JWT", "ü.b.c"], {"GPU-0": "a.b.c"}]',
    '[["JWT", "\\ud83d.b.c"], {"GPU-0": "a.b.c"}]',
])  # fmt: skip
def test_what_is_not_an_answer_fails_and_does_not_raise(text: str):
    assert check(text, gpus=1).status == "fail"


def recorded() -> tuple[str, str, str]:
    folder = "near-model-ecdsa-addr"
    meta = json.loads(vector(f"{folder}/meta.json"))
    answer = vector(f"{folder}/nras_response.json").decode()
    return answer, vector(f"{folder}/nras_jwks_used_keys.json").decode(), meta["nonce"]


@pytest.mark.parametrize(
    ("now", "status"),
    [(1781055991, "fail"), (1781055992, "pass"), (1781056027, "pass"), (1781059592, "pass"),
     (1781059593, "fail")],
)  # fmt: skip
def test_recorded_tokens_pass_within_their_hour(now: float, status: str):
    answer, keys, nonce = recorded()
    assert check_nras(answer, keys, nonce, 8, now, PRODUCTION).status == status


def test_recorded_tokens_fail_for_another_nonce_and_for_fewer_gpus():
    answer, keys, nonce = recorded()
    assert check_nras(answer, keys, "77" * 32, 8, 1781056027, PRODUCTION).status == "fail"
    assert check_nras(answer, keys, nonce, 7, 1781056027, PRODUCTION).status == "fail"
    document = json.loads(answer)
    del document[1]["GPU-7"]
    dropped = json.dumps(document)
    assert check_nras(dropped, keys, nonce, 7, 1781056027, PRODUCTION).status == "fail"
    assert check_nras(dropped, keys, nonce, 8, 1781056027, PRODUCTION).status == "fail"


def test_random_changes_of_recorded_tokens_never_pass_and_never_raise():
    answer, keys, nonce = recorded()
    rng = random.Random(5)
    for _ in range(100):
        at = rng.randrange(len(answer))
        changed = answer[:at] + chr(rng.randrange(33, 127)) + answer[at + 1 :]
        if changed != answer:
            assert check_nras(changed, keys, nonce, 8, 1781056027, PRODUCTION).status == "fail"


def test_the_unsigned_tokens_of_a_local_verifier_are_refused():
    recorded = json.loads(vector("dstack/gpu_attestation_h100.json"))
    text = json.dumps(recorded["detached_eat"])
    factor = check_nras(text, MAKER.keys, "11" * 32, 1, 1784207900, PRODUCTION)
    assert factor.status == "fail"
    assert factor.detail == "the overall token is not signed with ES384"
