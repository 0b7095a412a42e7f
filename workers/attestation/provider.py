"""Asks a provider for what proves a call: attestation reports, message signatures, ACI receipts.

Paths and parameters: NEAR AI Cloud's and Phala's API references; ACI's is
Dstack-TEE/private-ai-gateway. The document that comes back tells its own shape.
"""

from urllib.parse import quote

from workers.attestation.fetcher import MOST_BYTES, EvidenceAway, Fetched, Fetcher

ALGORITHM = "ecdsa"
"""Always named: one report may mix two."""
MOST_ID_CHARACTERS = 200
SIGNATURE_BYTES = 64 << 10
GONE = frozenset({404, 405})


class AttestedProvider:
    """One provider's address, for one process. Every call raises EvidenceAway."""

    def __init__(self, fetcher: Fetcher, *, base_url: str, api_key: str | None) -> None:
        self._fetcher = fetcher
        self._base = base_url.rstrip("/")
        self._key = api_key
        self._speaks_aci: bool | None = None

    async def report(self, model: str, *, nonce: str, signer: str, may_be_aci: bool) -> Fetched:
        """The attestation report of whoever serves a model; of `signer`'s machine, where given."""
        if may_be_aci and self._speaks_aci is not False:
            found = await self._get("/aci/attestation", {"nonce": nonce})
            self._speaks_aci = found.status not in GONE
            if self._speaks_aci:
                return _ok(found)
        asked = {
            "model": model,
            "signing_algo": ALGORITHM,
            "nonce": nonce,
            "include_tls_fingerprint": "true",
        }
        if signer:
            asked["signing_address"] = _as_address(signer)
        return _ok(await self._get("/attestation/report", asked))

    async def signature(self, message_id: str, model: str) -> str | None:
        """Of one answer, by the completion's id; None: not there, or not yet."""
        asked = {"model": model, "signing_algo": ALGORITHM}
        found = await self._get(f"/signature/{_segment(message_id)}", asked, SIGNATURE_BYTES)
        return None if found.status in GONE else _ok(found).text

    async def receipt(self, receipt_id: str) -> str | None:
        """An ACI gateway's."""
        found = await self._get(f"/aci/receipts/{_segment(receipt_id)}", {}, SIGNATURE_BYTES)
        return None if found.status in GONE else _ok(found).text

    async def _get(
        self, path: str, params: dict[str, str], most_bytes: int = MOST_BYTES
    ) -> Fetched:
        url = self._base + path
        return await self._fetcher.get(url, params=params, key=self._key, most_bytes=most_bytes)


def _ok(found: Fetched) -> Fetched:
    if found.status != 200:
        raise EvidenceAway(f"it answered with status {found.status}")
    return found


def _segment(given: str) -> str:
    """One segment of a path, whatever the provider's answer called itself."""
    if not given or len(given) > MOST_ID_CHARACTERS or given in {".", ".."}:
        raise EvidenceAway("the answer has no usable id")
    return quote(given, safe="")


def _as_address(signer: str) -> str:
    """An Ethereum address is written with 0x, an ed25519 key without."""
    return "0x" + signer if len(signer) == 40 else signer
