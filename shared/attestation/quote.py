"""A TDX quote: what its signatures, Intel's collateral and its own bytes say of the machine."""

from collections.abc import Mapping

import dcap_qvl
import msgspec

from shared.attestation import collateral
from shared.attestation.factor import Factor, failed, passed, unknown
from shared.attestation.policy import Policy
from shared.attestation.roots import Roots

DEBUG_BIT = 0x01
MAX_DETAIL = 200
LEVEL_REFUSALS = ("TCB status is invalid", "No matching TCB level found", "TDX module ISVSVN")
"""How `dcap-qvl` begins to refuse what is rightly signed, but of a level that Intel does not vouch for."""
DEBUG_REFUSAL = "Debug mode is enabled"


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The measured values, as parsed. They are facts only after the quote was verified."""

    report_data: bytes
    mr_config_id: bytes
    mr_td: bytes
    rtmrs: tuple[bytes, ...]
    td_attributes: bytes
    collateral_key: str
    """`FMSPC/ca`; empty where its certificate does not say."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    factors: tuple[Factor, ...]
    """quote_valid, collateral_current, tcb_status, not_debug."""
    quote: Quote | None = None
    is_verified: bool = False
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()


def parse(raw: bytes) -> Quote | None:
    """Quotes v4 and v5 of a TDX machine; None for anything else, SGX included."""
    try:
        parsed = dcap_qvl.parse_quote(raw)
        if not parsed.is_tdx():
            return None
    except ValueError:
        return None
    body = parsed.report
    return Quote(
        report_data=body.report_data,
        mr_config_id=body.mr_config_id,
        mr_td=body.mr_td,
        rtmrs=(body.rt_mr0, body.rt_mr1, body.rt_mr2, body.rt_mr3),
        td_attributes=body.td_attributes,
        collateral_key=_collateral_key(parsed),
    )


def check(
    raw: bytes, documents: Mapping[str, str], *, policy: Policy, roots: Roots, now: float
) -> Checked:
    """`documents`: the collateral there is, by its key. One that is missing leaves things open."""
    if not raw:
        return _refused("the attestation has no quote that can be read")
    quote = parse(raw)
    if quote is None:
        return _refused("not a quote of a TDX machine")
    document = documents.get(quote.collateral_key, "")
    if not document:
        return _open(quote, f"no collateral for {quote.collateral_key or 'its certificate'}")
    window = collateral.read_window(document)
    if window is None or not window.holds(now):
        return _outdated(quote, window.told if window else "the collateral cannot be read")
    return _verified(raw, quote, document, window, policy=policy, roots=roots, now=now)


def _verified(
    raw: bytes,
    quote: Quote,
    document: str,
    window: collateral.Window,
    *,
    policy: Policy,
    roots: Roots,
    now: float,
) -> Checked:
    try:
        report = _verify(raw, document, roots, now)
    except (ValueError, OverflowError) as error:
        return _refusal(quote, _cause(error))
    advisories = tuple(report.advisory_ids)
    factors = (
        passed("quote_valid", "quote", "chain and signatures lead to the configured root"),
        passed("collateral_current", "collateral", window.told),
        _level(report.status, advisories, policy),
        _debug(quote, is_verified=True),
    )
    return Checked(
        factors=factors,
        quote=quote,
        is_verified=True,
        tcb_status=report.status,
        advisories=advisories,
    )


def _verify(raw: bytes, document: str, roots: Roots, now: float) -> dcap_qvl.VerifiedReport:
    found = dcap_qvl.QuoteCollateralV3.from_json(document)
    if roots.intel_der is None:
        return dcap_qvl.verify(raw, found, int(now))
    return dcap_qvl.verify_with_root_ca(raw, found, roots.intel_der, int(now))


def _level(status: str, advisories: tuple[str, ...], policy: Policy) -> Factor:
    told = f"{status} ({', '.join(advisories)})" if advisories else status
    make = passed if status in policy.allowed_tcb else failed
    return make("tcb_status", "collateral", told)


def _debug(quote: Quote, *, is_verified: bool) -> Factor:
    if quote.td_attributes[0] & DEBUG_BIT:
        return failed("not_debug", "quote", "the machine's memory is open to its host: debug mode")
    if is_verified:
        return passed("not_debug", "quote")
    return unknown("not_debug", "quote", "the quote was not verified")


def _refused(reason: str) -> Checked:
    """There is nothing that the other factors could be read from."""
    return Checked(factors=(failed("quote_valid", "quote", reason), *_unknown(reason)))


def _unknown(reason: str) -> tuple[Factor, Factor, Factor]:
    return (
        unknown("collateral_current", "collateral", reason),
        unknown("tcb_status", "collateral", reason),
        unknown("not_debug", "quote", reason),
    )


def _open(quote: Quote, reason: str) -> Checked:
    current, level, _ = _unknown(reason)
    first = unknown("quote_valid", "quote", reason)
    return Checked(
        factors=(first, current, level, _debug(quote, is_verified=False)), quote=quote
    )  # fmt: skip


def _outdated(quote: Quote, reason: str) -> Checked:
    factors = (
        unknown("quote_valid", "quote", "cannot be decided by collateral that is not current"),
        failed("collateral_current", "collateral", reason),
        unknown("tcb_status", "collateral", "the collateral is not current"),
        _debug(quote, is_verified=False),
    )
    return Checked(factors=factors, quote=quote)


def _refusal(quote: Quote, cause: str) -> Checked:
    """The verifier ends at what it finds first: only that is told, and nothing else is vouched for."""
    reason = "the verifier ended before"
    valid, level = (
        failed("quote_valid", "quote", cause),
        unknown("tcb_status", "collateral", reason),
    )
    if cause.startswith(LEVEL_REFUSALS):
        valid = unknown("quote_valid", "quote", f"the verifier ended: {cause}")
        level = failed("tcb_status", "collateral", cause)
    elif cause.startswith(DEBUG_REFUSAL):
        valid = unknown("quote_valid", "quote", f"the verifier ended: {cause}")
    current = unknown("collateral_current", "collateral", "not vouched for: the quote was refused")
    return Checked(
        factors=(valid, current, level, _debug(quote, is_verified=False)), quote=quote
    )  # fmt: skip


def _cause(error: Exception) -> str:
    told = " ".join(str(error).removeprefix("Verification failed: ").split())
    return told[:MAX_DETAIL]


def _collateral_key(parsed: dcap_qvl.Quote) -> str:
    try:
        return f"{parsed.fmspc()}/{parsed.ca()}"
    except ValueError:
        return ""
