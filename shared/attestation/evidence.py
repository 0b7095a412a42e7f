"""Evidence: the raw documents a verdict rests on, each kept as the text that was received."""

from collections.abc import Mapping

import msgspec


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Of a session (report, collateral, NRAS) and of a message (signature). Empty: not obtained."""

    nonce: str = ""
    """Ours: 64 lowercase hex digits."""
    report: str = ""
    reported_at: float = 0.0
    """When the report was received, in epoch seconds."""
    collateral: Mapping[str, str] = {}
    """By `FMSPC/ca` (`90C06F000000/platform`): the JSON of Intel's nine members, as
    `dcap_qvl.QuoteCollateralV3.to_json` writes them."""
    nras: str = ""
    """NVIDIA's answer."""
    nras_keys: str = ""
    """The JWKS with the keys it was signed with."""
    signature: str = ""
    """The answer about one message's signature, or an ACI receipt."""
