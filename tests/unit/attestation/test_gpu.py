"""Of GPU evidence nothing is believed but signatures: each length, chain and nonce is checked."""

import base64
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from shared.attestation.certificates import read_chain
from shared.attestation.gpu import MAX_GPUS, check_gpus
from shared.attestation.roots import PRODUCTION, Roots
from tests.unit.attestation.gpu_mint import NONCE, Gpu, Maker, fields, payload
from tests.vectors import vector

MAKER = Maker()
GPU = Gpu(MAKER)
FIRMWARE = bytes(range(48))


def statuses(text: str, nonce: str = NONCE, roots: Roots = MAKER.roots) -> dict[str, str]:
    factors, _ = check_gpus(text, nonce, roots)
    assert [one.name for one in factors] == ["gpu_present", "gpu_nonce", "gpu_genuine"]
    return {one.name: one.status for one in factors}


def failing(text: str, nonce: str = NONCE, roots: Roots = MAKER.roots) -> list[str]:
    return [name for name, status in statuses(text, nonce, roots).items() if status == "fail"]


@pytest.mark.parametrize("count", [1, 8])
def test_genuine_gpus_pass_and_are_counted(count: int):
    text = payload(*(Gpu(MAKER).item() for _ in range(count)))
    factors, gpus = check_gpus(text, NONCE, MAKER.roots)
    assert [one.status for one in factors] == ["pass"] * 3
    assert gpus == count


@pytest.mark.parametrize(
    "text",
    ["", "junk", "[]", "{}", "null", payload(), '{"evidence_list": {}}', "[" * 100_000,
     payload(*[{}] * (MAX_GPUS + 1))],
)  # fmt: skip
def test_without_a_gpu_nothing_passes(text: str):
    assert statuses(text) == {
        "gpu_present": "fail", "gpu_nonce": "unknown", "gpu_genuine": "unknown"
    }  # fmt: skip
    assert check_gpus(text, NONCE, MAKER.roots)[1] == 0


def test_the_same_gpu_twice_is_not_two():
    assert failing(payload(GPU.item(), Gpu(MAKER).item(), GPU.item())) == ["gpu_present"]


def test_one_key_under_two_certificates_is_one_gpu():
    assert failing(payload(GPU.item(), Gpu(MAKER, key=GPU.key).item())) == ["gpu_present"]


def test_the_nonce_of_the_list_must_be_ours():
    assert failing(payload(GPU.item(), nonce="77" * 32)) == ["gpu_nonce"]


def test_the_nonce_that_a_gpu_signed_must_be_ours():
    assert failing(payload(GPU.item(), Gpu(MAKER, nonce="77" * 32).item())) == ["gpu_nonce"]


def test_a_nonce_may_be_written_in_capitals_and_with_its_prefix():
    assert failing(payload(GPU.item(), nonce="0x" + NONCE.upper())) == []


@pytest.mark.parametrize("nonce", ["", "5a", "zz" * 32, NONCE + " "])
def test_without_a_nonce_of_ours_none_is_right(nonce: str):
    assert statuses(payload(GPU.item(), nonce=nonce), nonce)["gpu_nonce"] == "unknown"


def test_gpus_of_another_maker_are_not_genuine():
    text = payload(GPU.item())
    assert failing(text, roots=PRODUCTION) == ["gpu_genuine"]
    assert failing(text, roots=Maker().roots) == ["gpu_genuine"]


def test_a_root_of_the_same_name_is_another_root():
    item = Gpu(Maker(middle_key=MAKER.middle_key)).item()
    assert failing(payload(item)) == ["gpu_genuine"]


def test_a_certificate_that_is_no_ca_issues_nothing():
    maker = Maker(middle_is_ca=False)
    assert failing(payload(Gpu(maker).item()), roots=maker.roots) == ["gpu_genuine"]


def pem_item(order: Sequence[int]) -> dict[str, Any]:
    pem = b"".join(GPU.chain[index].public_bytes(Encoding.PEM) for index in order)
    return {**GPU.item(), "certificate": base64.b64encode(pem).decode()}


@pytest.mark.parametrize("order", [[0, 2], [0, 1], [0, 2, 1], [0, 0, 1, 2], [0, 1, 2, 2, 1]])
def test_each_certificate_is_issued_by_the_next_and_the_last_is_the_root(order: list[int]):
    assert failing(payload(pem_item(order))) == ["gpu_genuine"]


@pytest.mark.parametrize("order", [[], [0], [2], [0, 1] + [2] * 9])
def test_a_chain_of_no_plausible_length_is_not_read(order: list[int]):
    assert failing(payload(pem_item(order))) == ["gpu_present", "gpu_nonce", "gpu_genuine"]


def test_another_gpu_signed_these_measurements():
    item = {**GPU.item(), "evidence": Gpu(MAKER).item()["evidence"]}
    assert failing(payload(item)) == ["gpu_genuine"]


def test_a_leaf_on_another_curve_is_not_read():
    other = ec.generate_private_key(ec.SECP256R1())
    item = {**GPU.item(), "certificate": Gpu(MAKER, key=other).item()["certificate"]}
    assert "gpu_genuine" in failing(payload(item))


@pytest.mark.parametrize(
    "gpu",
    [
        Gpu(MAKER, request_head=b"\x10\xe0\0\0"),
        Gpu(MAKER, request_head=b"\x11\xe1\0\0"),
        Gpu(MAKER, response_head=b"\x11\x7f\0\0\0"),
        Gpu(MAKER, record=b"12345", record_length=4),
        Gpu(MAKER, record=b"12345", record_length=6),
        Gpu(MAKER, record_length=0xFFFFFF),
        Gpu(MAKER, opaque=fields((3, b"570")), opaque_length=6),
        Gpu(MAKER, opaque=fields((3, b"570")), opaque_length=8),
        Gpu(MAKER, opaque_length=0xFFFF),
        Gpu(MAKER, opaque=fields((3, b"570"))[:-1]),
        Gpu(MAKER, opaque=b"\x03\0\xff\xff"),
        Gpu(MAKER, opaque=b"\x03\0\0"),
        Gpu(MAKER, tail=b"\0"),
    ],
)
def test_signed_evidence_whose_lengths_do_not_fit_is_not_read(gpu: Gpu):
    assert failing(payload(gpu.item())) == ["gpu_present", "gpu_nonce", "gpu_genuine"]


def test_evidence_cut_anywhere_is_not_read():
    whole = Gpu(MAKER, opaque=fields((3, b"570"), (6, b"12345678"))).evidence
    for size in range(len(whole)):
        item = {**GPU.item(), "evidence": base64.b64encode(whole[:size]).decode()}
        assert "gpu_present" in failing(payload(item))


def test_no_bit_of_the_evidence_can_be_another():
    whole = Gpu(MAKER, opaque=fields((3, b"570"))).evidence
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        item = {**GPU.item(), "evidence": base64.b64encode(changed).decode()}
        assert "gpu_genuine" in failing(payload(item))


def test_the_firmware_is_the_one_the_certificate_is_for():
    info = b"\x30\x32\x04\x30" + FIRMWARE
    opaque = fields((20, FIRMWARE))
    assert failing(payload(Gpu(MAKER, tcb_info=info, opaque=opaque).item())) == []
    other = fields((20, FIRMWARE[::-1]))
    assert failing(payload(Gpu(MAKER, tcb_info=info, opaque=other).item())) == ["gpu_genuine"]
    both = opaque + other
    assert failing(payload(Gpu(MAKER, tcb_info=info, opaque=both).item())) == ["gpu_genuine"]
    short = fields((20, b""))
    assert failing(payload(Gpu(MAKER, tcb_info=info, opaque=short).item())) == ["gpu_genuine"]
    assert failing(payload(Gpu(MAKER, opaque=opaque).item())) == ["gpu_genuine"]


def test_versions_are_told_as_people_write_them():
    opaque = fields((3, b"570.172.08\0"), (6, bytes.fromhex("00cf009602000000")))
    factors, _ = check_gpus(payload(Gpu(MAKER, opaque=opaque).item()), NONCE, MAKER.roots)
    assert factors[2].detail.endswith("driver 570.172.08, VBIOS 96.00.CF.00.02")


@pytest.mark.parametrize("junk", [None, 1, "junk", [], {}, "A" * 1_000_000, "ünïcode", "\x00"])
@pytest.mark.parametrize("name", ["certificate", "evidence"])
def test_junk_in_an_item_fails_and_does_not_raise(name: str, junk: Any):
    items = [{**GPU.item(), name: junk}, junk]
    for item in items:
        assert "gpu_genuine" in failing(payload(item))


def recorded() -> tuple[str, str]:
    report = json.loads(vector("near-model-ecdsa-addr/attestation_report.json"))
    return report["nvidia_payload"], report["request_nonce"]


def test_eight_recorded_gpus_are_genuine_under_the_built_in_root():
    text, nonce = recorded()
    factors, gpus = check_gpus(text, nonce, PRODUCTION)
    assert [one.status for one in factors] == ["pass"] * 3
    assert gpus == 8


def test_recorded_gpus_fail_under_another_nonce_and_another_root():
    text, nonce = recorded()
    assert failing(text, "77" * 32, PRODUCTION) == ["gpu_nonce"]
    assert failing(text, nonce) == ["gpu_genuine"]


def test_the_same_recorded_gpu_eight_times_is_one():
    text, nonce = recorded()
    document = json.loads(text)
    document["evidence_list"] = document["evidence_list"][:1] * 8
    assert failing(json.dumps(document), nonce, PRODUCTION) == ["gpu_present"]


def test_random_changes_of_recorded_evidence_never_pass_and_never_raise():
    text, nonce = recorded()
    document, rng = json.loads(text), random.Random(5)
    item = document["evidence_list"][0]
    for name in ("certificate", "evidence"):
        whole = base64.b64decode(item[name])
        for _ in range(150):
            changed = bytearray(whole)
            changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
            one = {**item, name: base64.b64encode(changed).decode()}
            if name == "certificate" and _same_certificates(bytes(changed), whole):
                continue
            assert failing(payload(one, nonce=nonce), nonce, PRODUCTION)


def _same_certificates(changed: bytes, whole: bytes) -> bool:
    """Line ends of a PEM are no part of it."""
    return read_chain(changed) == read_chain(whole)
