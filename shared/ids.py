"""Makes ids: UUIDv7, so that they sort by the time they were made (RFC 9562 §5.7)."""

import uuid_utils


def new_id() -> str:
    """A fresh UUIDv7 as 32 lowercase hex digits: request ids, row ids, process ids."""
    return uuid_utils.uuid7().hex


def dashed(hex_id: str) -> str:
    """The canonical 8-4-4-4-12 form of a 32-digit id, as clients see it."""
    return f"{hex_id[:8]}-{hex_id[8:12]}-{hex_id[12:16]}-{hex_id[16:20]}-{hex_id[20:]}"
