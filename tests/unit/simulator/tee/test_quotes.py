"""What is minted must convince the real verifier under the synthetic root, and under no other."""

import hashlib
import json
from datetime import timedelta
from functools import cache
from pathlib import Path

import dcap_qvl
import pytest
from cryptography import x509

from shared.attestation import roots
from shared.attestation.roots import SYNTHETIC_ORGANISATION
from tests.minted import NONCE, NOW, minted, quotes_in, tee
from workers.simulator.tee.collateral import State, collateral
from workers.simulator.tee.faults import fmspc_of, state_of
from workers.simulator.tee.fleet import NEAR_MODEL, VLLM_PROXY, Fleet
from workers.simulator.tee.node import address_form, flipped
from workers.simulator.tee.pki import Pki

REPORT_DATA = slice(568, 632)
FIRST_CERTIFICATE_AT = 1260
UNSIGNED_FRAMING = {764, 765, 1254, 1255}
"""What kind of certification follows: the library goes by its form, and nobody signs the number."""
ROOT = tee().pki.root.der
DAY = timedelta(days=1).total_seconds()


def quote(fault: str = "", report_data: bytes = bytes(64)) -> bytes:
    return tee().fleet.nodes(NEAR_MODEL, fault)[0].quote(report_data)


def verified(
    data: bytes,
    *,
    state: State | None = None,
    fault: str = "",
    root: bytes = ROOT,
    now: float = NOW,
) -> dcap_qvl.VerifiedReport:
    """By Intel's own rules, in the library that the gateway uses."""
    told = state or state_of(fmspc_of(fault)) or State()
    return dcap_qvl.verify_with_root_ca(data, issued(fault, told), root, int(now))


@cache
def issued(fault: str, state: State) -> dcap_qvl.QuoteCollateralV3:
    document = collateral(tee().pki, fmspc_of(fault), state, now=NOW).to_json()
    return dcap_qvl.QuoteCollateralV3.from_json(document)


def test_a_quote_is_up_to_date_under_its_own_root():
    report = verified(quote())
    assert (report.status, report.advisory_ids) == ("UpToDate", [])


def test_a_quote_says_what_was_measured():
    node = tee().fleet.nodes(NEAR_MODEL)[0]
    parsed = dcap_qvl.parse_quote(quote(report_data=b"d" * 64))
    shown = node.measurements
    assert (parsed.header.version, parsed.is_tdx()) == (4, True)
    assert (parsed.fmspc(), parsed.ca()) == (fmspc_of(""), "platform")
    report = parsed.report
    assert (report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3) == shown.rtmrs
    compose_hash = hashlib.sha256(node.compose.encode()).digest()
    assert report.mr_config_id == b"\x01" + compose_hash + bytes(15)
    assert (report.mr_td, report.report_data) == (shown.mr_td, b"d" * 64)


@pytest.mark.parametrize("algorithm", ["ecdsa", "ed25519"])
@pytest.mark.parametrize("ends_tls", [False, True])
def test_report_data_has_both_forms_for_both_kinds_of_signers(algorithm: str, ends_tls: bool):
    case = minted(algorithm=algorithm, ends_tls=ends_tls)
    report = json.loads(case.evidence.report)
    signer = bytes.fromhex(report["signing_address"].removeprefix("0x"))
    spki = bytes.fromhex(report.get("tls_cert_fingerprint", ""))
    assert bool(spki) is ends_tls
    bound = hashlib.sha256(signer + spki).digest() if spki else signer.ljust(32, b"\0")
    told = quotes_in(case.evidence.report)[0]
    assert told[REPORT_DATA] == bound + bytes.fromhex(NONCE)
    source = tee(ends_tls=ends_tls)
    served = source.intel.collateral(fmspc_of(""), State()).to_json()
    document = dcap_qvl.QuoteCollateralV3.from_json(served)
    verified_report = dcap_qvl.verify_with_root_ca(told, document, source.pki.root.der, int(NOW))
    assert verified_report.status == "UpToDate"


def test_a_quote_is_refused_under_intels_root():
    with pytest.raises(ValueError, match=r"."):
        dcap_qvl.verify(quote(), issued("", State()), int(NOW))


def test_a_quote_is_refused_under_another_synthetic_root():
    with pytest.raises(ValueError, match=r"."):
        verified(quote(), root=Pki.mint(NOW).root.der)


def test_a_quote_under_another_synthetic_root_is_refused_under_ours():
    with pytest.raises(ValueError, match=r"."):
        verified(quote("foreign-root"))


def test_a_debug_machine_is_refused():
    with pytest.raises(ValueError, match="Debug mode is enabled"):
        verified(quote("debug"))


def test_a_revoked_platform_is_refused():
    with pytest.raises(ValueError, match="TCB status is invalid: Revoked"):
        verified(quote("revoked"), fault="revoked")


@pytest.mark.parametrize(
    ("fault", "status"), [("out-of-date", "OutOfDate"), ("sw-hardening", "SWHardeningNeeded")]
)
def test_a_platform_behind_verifies_and_says_so(fault: str, status: str):
    report = verified(quote(fault), fault=fault)
    assert report.status == status
    assert report.advisory_ids


def test_expired_collateral_is_refused():
    with pytest.raises(ValueError, match="TCBInfo expired"):
        verified(quote("expired-collateral"), fault="expired-collateral")


@pytest.mark.parametrize(("days", "problem"), [(31, "xpired"), (-1, "in the future")])
def test_collateral_is_refused_outside_its_month(days: int, problem: str):
    with pytest.raises(ValueError, match=problem):
        verified(quote(), now=NOW + days * DAY)


def test_any_flipped_byte_is_refused():
    """Of header, body, signature, and the enclave's report; every byte that is signed, one by one."""
    data = quote()
    accepted = {at for at in range(FIRST_CERTIFICATE_AT) if is_verified(flipped(data, at))}
    assert accepted <= UNSIGNED_FRAMING


def is_verified(data: bytes) -> bool:
    try:
        verified(data)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_certificate_is_refused(number: int):
    """The leaf, and the authority above it; the root is compared with the one that is known."""
    data = quote()
    starts = [at for at in range(len(data)) if data.startswith(b"-----BEGIN CERT", at)]
    inside = starts[number] + len("-----BEGIN CERTIFICATE-----\n") + 200
    with pytest.raises(ValueError, match=r"."):
        verified(flipped(data, inside if data[inside : inside + 1] != b"\n" else inside + 1))


def test_the_root_is_never_among_those_of_production():
    assert tee().pki.roots.synthetic
    assert tee().pki.roots.intel_der == ROOT
    assert roots.PRODUCTION.intel_der is None
    assert roots.PRODUCTION.nvidia_sha256 != tee().pki.roots.nvidia_sha256


def test_every_certificate_is_marked_as_synthetic():
    identities = [*tee().pki.identities.values(), tee().pki.pck(fmspc_of(""))]
    for identity in identities:
        named = identity.certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        assert [name.value for name in named] == [SYNTHETIC_ORGANISATION]


def test_a_kept_pki_is_the_same_afterwards_and_its_owners_alone(tmp_path: Path):
    pki = Pki.mint(NOW)
    pki.save(tmp_path / "tee")
    again = Pki.load(tmp_path / "tee")
    assert roots.load(tmp_path / "tee" / "roots.json") == pki.roots == again.roots
    assert again.tls_spki_sha256 == pki.tls_spki_sha256
    assert (tmp_path / "tee" / "ca.pem").read_text() == pki.root.pem
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "tee").iterdir()}
    assert modes == {0o600}


def test_a_kept_pki_is_never_replaced(tmp_path: Path):
    Pki.mint(NOW).save(tmp_path)
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="holds a TEE"):
        Pki.mint(NOW).save(tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept


def test_one_that_was_not_wholly_kept_can_be_made_again(tmp_path: Path):
    Pki.mint(NOW).save(tmp_path)
    (tmp_path / "roots.json").unlink()
    again = Pki.mint(NOW)
    again.save(tmp_path)
    assert Pki.load(tmp_path).roots == again.roots


def test_machines_of_a_kept_pki_keep_the_signers_that_a_key_service_holds(tmp_path: Path):
    pki = Pki.mint(NOW)
    pki.save(tmp_path)
    fleets = [Fleet(one, ends_tls=False) for one in (pki, Pki.load(tmp_path))]
    kept, random = (
        {fleet.nodes(service)[0].ecdsa.address for fleet in fleets}
        for service in (NEAR_MODEL, VLLM_PROXY)
    )
    assert (len(kept), len(random)) == (1, 2)


def test_a_directory_without_a_pki_says_so(tmp_path: Path):
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no PKI"):
        Pki.load(tmp_path)


def test_the_signer_is_bound_by_its_bytes_and_not_by_its_text():
    signer = tee().fleet.nodes(NEAR_MODEL)[0].ecdsa
    assert address_form(signer, bytes(32))[:20] == bytes.fromhex(signer.address[2:])
