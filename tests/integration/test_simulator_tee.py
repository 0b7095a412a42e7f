"""The synthetic TEE over HTTP: what is signed is what went over the wire, and the verifier agrees."""

import asyncio
import hashlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dcap_qvl
import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.attestation.evidence import Evidence
from shared.attestation.policy import Policy
from shared.attestation.roots import Roots, load
from shared.attestation.session import collateral_needed
from shared.attestation.verdict import Verdict
from shared.attestation.verify import verify
from shared.transcript import Transcript
from tests.integration.test_simulator import Running, chat, open_call, simulator
from tests.minted import digest

NONCE = hashlib.sha256(b"ours").hexdigest()
DONE = b"data: [DONE]\n\n"
NEAR_HEADERS = {"x-no-aliasing": "true"}
SIGNED = ["/near/v1", "/near-direct/v1", "/phala/v1", "/aci-b/v1", "/aci-c/v1"]


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        running.client.headers.update(NEAR_HEADERS)
        yield running


def asked(
    sim: Running, base: str, model: str = "sim/chat", **members: Any
) -> tuple[bytes, httpx.Response]:
    """The body as it was sent, and the answer."""
    body = json.dumps(chat(model, **members)).encode()
    answer = sim.client.post(f"{base}/chat/completions", content=body)
    assert answer.status_code == 200, answer.text
    return body, answer


def id_of(answer: httpx.Response) -> str:
    first = answer.content.removeprefix(b"data: ").split(b"\n")[0]
    return str(json.loads(first)["id"])


def signature(sim: Running, base: str, chat_id: str, **query: str) -> httpx.Response:
    return sim.client.get(f"{base}/signature/{chat_id}", params=query)


def roots(sim: Running) -> Roots:
    return msgspec.json.decode(sim.client.get("/_sim/tee/roots").content, type=Roots)


def judged(sim: Running, base: str, *, model: str = "sim/chat", stream: bool = False) -> Verdict:
    """A call, and everything that is asked for about it, judged by the gateway's own rules."""
    body, answer = asked(sim, base, model, stream=stream)
    query = {"model": model, "signing_algo": "ecdsa", "nonce": NONCE}
    signed = signature(sim, base, id_of(answer), **query).text
    address = json.loads(signed)["signing_address"]
    report = sim.client.get(
        f"{base}/attestation/report", params={**query, "signing_address": address}
    ).text
    evidence = Evidence(
        nonce=NONCE,
        report=report,
        reported_at=time.time(),
        collateral=asyncio.run(collateral(sim, report)),
        signature=signed,
        **nras(sim, report),
    )
    transcript = Transcript(
        receipt_id="0" * 32, request_id="1" * 32, tenant="t", user="u", model="m", provider="p",
        provider_type="near", upstream_model=model, config_hash="c", endpoint="chat.completions",
        tier="TEE", streamed=stream, started_at=time.time(), ended_at=time.time(), complete=True,
        forwarded_request=digest(body), upstream_response=digest(answer.content),
        upstream_id=id_of(answer),
    )  # fmt: skip
    return verify(
        transcript, evidence, policy=Policy(), roots=roots(sim), now=time.time(), is_over=True
    )


async def collateral(sim: Running, report: str) -> dict[str, str]:
    """By the library's own client, as from any PCCS."""
    wanted = collateral_needed(report)
    found = {}
    for quote in _quotes(json.loads(report)):
        parsed = dcap_qvl.parse_quote(quote)
        told = await dcap_qvl.get_collateral(sim.url, quote)
        found[f"{parsed.fmspc()}/{parsed.ca()}"] = told.to_json()
    assert set(found) == set(wanted)
    return found


def _quotes(report: dict[str, Any]) -> list[bytes]:
    holders = [report, report.get("gateway_attestation", {}), *report.get("model_attestations", [])]
    return [bytes.fromhex(one["intel_quote"]) for one in holders if "intel_quote" in one]


def nras(sim: Running, report: str) -> dict[str, str]:
    document = json.loads(report)
    holder = document.get("model_attestations", [document])[0]
    answer = sim.client.post("/nras/v3/attest/gpu", content=holder["nvidia_payload"])
    assert answer.status_code == 200
    keys = sim.client.get("/nras/.well-known/jwks.json").text
    return {"nras": answer.text, "nras_keys": keys}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("base", ["/near/v1", "/near-direct/v1", "/phala/v1"])
def test_an_honest_call_is_verified(sim: Running, base: str, stream: bool) -> None:
    expected = "gateway_only" if (base, stream) == ("/near/v1", True) else "verified"
    found = judged(sim, base, stream=stream)
    assert found.label == expected, found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("base", SIGNED)
def test_what_is_signed_is_what_went_over_the_wire(sim: Running, base: str, stream: bool) -> None:
    body, answer = asked(sim, base, stream=stream)
    text = signature(sim, base, id_of(answer)).json()["text"]
    assert text.split(":")[-2:] == [digest(body).sha256, digest(answer.content).sha256]


@pytest.mark.parametrize("path", ["embeddings", "rerank"])
def test_other_endpoints_are_signed_by_the_id_of_their_answer(sim: Running, path: str) -> None:
    members: dict[str, dict[str, object]] = {
        "embeddings": {"input": "a"},
        "rerank": {"query": "a", "documents": ["a", "b"]},
    }
    model = {"embeddings": "sim/embed", "rerank": "sim/rerank"}[path]
    body = json.dumps({"model": model, **members[path]}).encode()
    answer = sim.client.post(f"/near-direct/v1/{path}", content=body)
    told = signature(sim, "/near-direct/v1", answer.json()["id"]).json()["text"]
    assert told == f"{model}:{digest(body).sha256}:{digest(answer.content).sha256}"


@pytest.mark.parametrize("base", ["/aci-b/v1", "/aci-c/v1"])
def test_a_receipt_is_named_in_the_headers_and_names_a_session(sim: Running, base: str) -> None:
    body, answer = asked(sim, base, stream=True)
    receipt_id = answer.headers["x-receipt-id"]
    by_receipt, by_answer = (
        sim.client.get(f"{base}/aci/receipts/{one}").json() for one in (receipt_id, id_of(answer))
    )
    assert by_receipt["receipt_id"] == by_answer["receipt_id"] == receipt_id
    assert by_receipt["workload_keyset_digest"] == answer.headers["x-aci-keyset-digest"]
    events = {event["type"]: event for event in by_receipt["event_log"]}
    assert events["request.forwarded"]["body_hash"] == f"sha256:{digest(body).sha256}"
    session_id = events["upstream.verified"]["session_id"]
    assert sim.client.get(f"{base}/aci/sessions/{session_id}").status_code == 200
    assert sim.client.get(f"{base}/aci/sessions/{'0' * 64}").status_code == 404


def test_an_aci_report_is_for_the_nonce_that_was_asked(sim: Running) -> None:
    quotes = [
        sim.client.get("/aci-c/v1/aci/attestation", params=query).json()["attestation"]["evidence"]
        for query in ({"nonce": NONCE}, {"nonce": "00" * 32}, {})
    ]
    assert len({one["quote_report_data"] for one in quotes}) == 3


@pytest.mark.parametrize("base", ["/chutes/v1", "/tinfoil/v1", "/v1"])
def test_nobody_signs_where_nodes_are_resold(sim: Running, base: str) -> None:
    _, answer = asked(sim, base)
    assert signature(sim, base, id_of(answer)).status_code == 404


def test_a_stream_that_was_cut_is_never_signed(sim: Running) -> None:
    body = chat("sim/fault/cut_after_20", stream=True)
    received = b""
    with sim.client.stream("POST", "/near-direct/v1/chat/completions", json=body) as response:
        try:
            for data in response.iter_raw():
                received += data
        except httpx.RemoteProtocolError:
            pass
    chat_id = json.loads(received.removeprefix(b"data: ").split(b"\n")[0])["id"]
    assert signature(sim, "/near-direct/v1", chat_id).status_code == 404


def test_a_stream_whose_client_left_is_never_signed(sim: Running) -> None:
    sim.client.post("/_sim/config", json={"tokens_per_second": 50})
    try:
        path = "/near-direct/v1"
        with open_call(sim, model="sim/chat", stream=True, path=path) as connection:
            received = b""
            while received.count(b"data: ") < 2:
                received += connection.recv(4096)
    finally:
        sim.client.post("/_sim/config", json={"tokens_per_second": 0})
    assert sim.ended()["status"] == "aborted"
    chat_id = json.loads(received.split(b"data: ")[1].split(b"\n")[0])["id"]
    assert signature(sim, path, chat_id).status_code == 404


def test_a_signature_may_be_late(sim: Running) -> None:
    _, answer = asked(sim, "/near-direct/v1", "tee-signature-404-2")
    tries = [signature(sim, "/near-direct/v1", id_of(answer)).status_code for _ in range(3)]
    assert tries == [404, 404, 200]


@pytest.mark.parametrize(
    ("kind", "status"), [("signature-never", 404), ("signature-500", 500), ("signature-error", 200)]
)
def test_a_signature_may_never_come(sim: Running, kind: str, status: int) -> None:
    _, answer = asked(sim, "/phala/v1", f"tee-{kind}")
    found = signature(sim, "/phala/v1", id_of(answer))
    assert (found.status_code, "text" in found.json()) == (status, False)


@pytest.mark.parametrize(
    ("fault", "factor"), [("out-of-date", "tcb_status"), ("debug", "not_debug")]
)
def test_a_fault_is_asked_for_by_the_models_name(sim: Running, fault: str, factor: str) -> None:
    found = judged(sim, "/phala/v1", model=f"tee-{fault}")
    assert (found.label, found.detail) == ("failed", factor)


def test_a_report_may_be_refused_or_spoilt_or_never_come(sim: Running) -> None:
    path = "/near-direct/v1/attestation/report"
    assert sim.client.get(path, params={"model": "tee-report-500"}).status_code == 500
    with pytest.raises(json.JSONDecodeError):
        sim.client.get(path, params={"model": "tee-report-garbage"}).json()
    with pytest.raises(httpx.ReadTimeout):
        sim.client.get(path, params={"model": "tee-report-stall"}, timeout=0.3)


def test_the_vendors_may_be_away(sim: Running) -> None:
    report = sim.client.get(
        "/near-direct/v1/attestation/report", params={"model": "tee-nras-away", "nonce": NONCE}
    ).json()
    answer = sim.client.post("/nras/v3/attest/gpu", content=report["nvidia_payload"])
    assert answer.status_code == 503
    away = sim.client.get(
        "/near-direct/v1/attestation/report", params={"model": "tee-pccs-away", "nonce": NONCE}
    ).json()
    fmspc = dcap_qvl.parse_quote(bytes.fromhex(away["intel_quote"])).fmspc()
    assert sim.client.get("/tdx/certification/v4/tcb", params={"fmspc": fmspc}).status_code == 503


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/near/v1/attestation/report", {"nonce": "short"}),
        ("/near/v1/attestation/report", {"signing_algo": "rsa"}),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    sim: Running, path: str, query: dict[str, str]
) -> None:
    assert sim.client.get(path, params=query).status_code == 400


def test_who_has_no_key_is_told_nothing(sim: Running) -> None:
    answer = httpx.get(f"{sim.url}/near/v1/attestation/report")
    assert answer.status_code == 401


def test_hundreds_of_signatures_at_once_are_no_trouble(sim: Running) -> None:
    ids = [id_of(asked(sim, "/near-direct/v1")[1]) for _ in range(20)] * 25

    async def all_of_them() -> list[int]:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(
            base_url=sim.url, headers=sim.client.headers, limits=limits, timeout=30
        ) as client:
            answers = await asyncio.gather(
                *(client.get(f"/near-direct/v1/signature/{one}") for one in ids)
            )
            return [answer.status_code for answer in answers]

    assert asyncio.run(all_of_them()) == [200] * 500


# A TEE that outlives the process, and TLS


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kept") / "tee"
    command = [sys.executable, "-W", "error", "-m", "workers.simulator", "mint", str(directory)]
    subprocess.run(command, check=True, timeout=30)
    return directory


def test_a_minted_directory_is_used_start_after_start(kept: Path, tmp_path: Path) -> None:
    addresses = set()
    for _ in range(2):
        with simulator("--tee", str(kept), stderr=tmp_path / "stderr") as running:
            assert roots(running) == load(kept / "roots.json")
            report = running.client.get("/near-direct/v1/attestation/report").json()
            addresses.add(report["signing_address"])
    assert len(addresses) == 1


def test_minting_twice_is_refused_in_plain_words(kept: Path) -> None:
    before = (kept / "keys.json").read_bytes()
    command = [sys.executable, "-m", "workers.simulator", "mint"]
    again = subprocess.run([*command, str(kept)], capture_output=True, text=True, timeout=30)
    assert again.returncode == 2
    assert "holds a TEE" in again.stderr
    assert "Traceback" not in again.stderr
    assert (kept / "keys.json").read_bytes() == before
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=30).stdout
    assert "--tee DIR" in told
    assert "--tls" in told


def test_without_one_the_roots_are_new_at_every_start(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        with simulator(stderr=tmp_path / "stderr") as running:
            seen.add(roots(running).digest)
    assert len(seen) == 2


def test_tls_ends_with_the_key_that_is_attested(kept: Path, tmp_path: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(kept / "ca.pem"))
    with (
        simulator(
            "--tee", str(kept), "--tls", stderr=tmp_path / "stderr", verify=trusting
        ) as running,
    ):
        assert running.url.startswith("https://")
        query = {"include_tls_fingerprint": "true", "nonce": NONCE}
        path = "/near-direct/v1/attestation/report"
        told = running.client.get(path, params=query).json()["tls_cert_fingerprint"]
        lying = running.client.get(path, params={**query, "model": "tee-tls-not-attested"}).json()
        assert "tls_cert_fingerprint" not in running.client.get(path).json()
        assert told == peer_spki(running) != lying["tls_cert_fingerprint"]


def peer_spki(running: Running) -> str:
    url = httpx.URL(running.url)
    assert url.port is not None
    pem = ssl.get_server_certificate((url.host, url.port))
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
