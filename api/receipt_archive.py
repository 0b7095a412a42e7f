"""The archive as its readers get it: a receipt as one file that proves itself, and proofs of the log."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from api.management import moment
from api.receipt_entry import identity_of
from shared.attestation.log_proof import LogProof, log_proof
from shared.attestation.signing import ALGORITHM, ReceiptKey, TreeHead
from shared.errors import NotFound
from shared.postgres.receipts import ReceiptStore, StoredReceipt
from shared.postgres.transparency_log import LogReader

WHEN = "A receipt appears within a second or so of its answer's end, while the background process runs."


class ExportedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """An exported receipt."""

    receipt: msgspec.Raw
    """Byte for byte as it was signed."""
    evidence: Mapping[str, str]
    """By digest, the texts as a provider sent them: nothing in them is ours, or is believed."""
    log: LogProof | None


class InclusionProof(msgspec.Struct, frozen=True, kw_only=True):
    """That a receipt is in the tree of a size. Bytes are lowercase hex."""

    receipt_id: str
    leaf_index: int
    leaf_hash: str
    tree_size: int
    root_hash: str
    inclusion_proof: tuple[str, ...]
    head: TreeHead | None
    """None: no head was signed over just so many leaves."""


class ConsistencyProof(msgspec.Struct, frozen=True, kw_only=True):
    """That the log of one size is the beginning of that of another. Bytes are lowercase hex."""

    first: int
    second: int
    first_root: str
    second_root: str
    consistency_proof: tuple[str, ...]


class Archive:
    """Raises NotFound for what is not there, and for what is another tenant's."""

    def __init__(self, receipts: ReceiptStore, log: LogReader) -> None:
        self._receipts = receipts
        self._log = log

    async def document(self, receipt_id: str, tenant: str | None) -> dict[str, Any]:
        """The signed one, by the receipt's id or its request's; of a tenant, or of any."""
        found = await self._find(receipt_id, tenant)
        if found.document is None:
            raise NotFound(f"Receipt '{receipt_id}' is pending", code="receipt_pending")
        return _read(found.document)

    async def export(
        self, receipt_id: str, tenant: str | None = None, *, with_evidence: bool = True
    ) -> ExportedReceipt:
        found = await self._find(receipt_id, tenant)
        if found.document is None:
            pending = msgspec.json.encode(identity_of(found.row))
            return ExportedReceipt(receipt=msgspec.Raw(pending), evidence={}, log=None)
        wanted = digests_in(_read(found.document)) if with_evidence else []
        return ExportedReceipt(
            receipt=msgspec.Raw(found.document),
            evidence=await self._receipts.evidence(wanted),
            log=await self._log_proof(found),
        )

    async def inclusion(
        self, receipt_id: str, tenant: str | None, size: int | None = None
    ) -> InclusionProof:
        """In the tree of a size; of the newest head's, where none is named. Raises InvalidRequest."""
        found = await self._find(receipt_id, tenant)
        index, leaf, newest = found.row.log_index, found.leaf_hash, await self._log.head()
        if index is None or leaf is None or newest is None:
            raise NotFound(
                f"Receipt '{receipt_id}' is not in the log yet", code="receipt_not_logged"
            )
        size = newest.tree_size if size is None else size
        return InclusionProof(
            receipt_id=str(found.row.receipt_id),
            leaf_index=index,
            leaf_hash=leaf.hex(),
            tree_size=size,
            inclusion_proof=_hex(await self._log.inclusion(index, size)),
            root_hash=(await self._log.root(size)).hex(),
            head=await self._log.head(size),
        )

    async def consistency(self, first: int, second: int | None = None) -> ConsistencyProof:
        """Up to the newest head's size, where no second one is named. Raises InvalidRequest."""
        if second is None:
            newest = await self._log.head()
            second = 0 if newest is None else newest.tree_size
        path = await self._log.consistency(first, second)
        return ConsistencyProof(
            first=first,
            second=second,
            first_root=(await self._log.root(first)).hex(),
            second_root=(await self._log.root(second)).hex(),
            consistency_proof=_hex(path),
        )

    async def head(self) -> TreeHead | None:
        return await self._log.head()

    async def keys(self, own: ReceiptKey) -> list[dict[str, Any]]:
        """All that sign or have signed here; the present one even before its first head."""
        known = await self._log.keys()
        told = [_key(key.key_id, key.public_key, key.first_used_at) for key in known]
        if own.key_id not in {key.key_id for key in known}:
            told.insert(0, _key(own.key_id, own.public_key, None))
        return told

    async def _find(self, receipt_id: str, tenant: str | None) -> StoredReceipt:
        found = await self._receipts.find(receipt_id, tenant)
        if found is None:
            raise NotFound(f"Receipt '{receipt_id}' not found. {WHEN}", code="receipt_not_found")
        return found

    async def _log_proof(self, found: StoredReceipt) -> LogProof | None:
        """In the newest tree: its size is above an index that was read before it."""
        index, leaf, head = found.row.log_index, found.leaf_hash, await self._log.head()
        if index is None or leaf is None or head is None:
            return None
        path = await self._log.inclusion(index, head.tree_size)
        keys = {key.key_id: key.public_key for key in await self._log.keys()}
        return log_proof(index, leaf, path, head, keys[head.key_id])


def digests_in(document: Mapping[str, Any]) -> list[str]:
    """Of all the evidence that a document of ours names."""
    named = document["evidence"]
    single = [named[name] for name in ("report", "nras", "nras_keys", "signature")]
    return [digest for digest in (*single, *named["collateral"].values()) if digest]


def _key(key_id: str, public_key: bytes, first_used_at: datetime | None) -> dict[str, Any]:
    return {
        "key_id": key_id,
        "algorithm": ALGORITHM,
        "public_key": public_key.hex(),
        "first_used_at": moment(first_used_at),
    }


def _read(document: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(document)
    return found


def _hex(hashes: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(one.hex() for one in hashes)
