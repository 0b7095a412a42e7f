"""The queue's Lua scripts. Changing one changes the version in its name; old ones stay a release.

Every connection loads them when it opens, so a server that lost them learns them again.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files


class Script:
    """One script, called by the SHA-1 of its text (EVALSHA)."""

    def __init__(self, name: str, *, uses: Sequence[str] = ()) -> None:
        """`uses` names files of functions, put between the script's first line and the rest."""
        self.name = name
        flags, _, rest = _read(name).partition(b"\n")
        self.text = b"\n".join((flags, *map(_read, uses), rest))
        # The protocol names scripts by SHA-1; nothing secret rests on it.
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


def _read(name: str) -> bytes:
    return (files(__package__) / f"{name}.lua").read_bytes()


SERVER_AGE = "server_age"
SPEND_ROWS = "spend_rows"
UPLOADS = "uploads"
LIMITS = "limits"
ACCOUNTS = "accounts"
ADMISSION = "admission"

ADMIT = Script("admit.v1", uses=(LIMITS, ADMISSION))
PROBE = Script("probe.v1", uses=(LIMITS, ADMISSION))
ATTEMPT = Script("attempt.v1", uses=(SERVER_AGE, SPEND_ROWS))
POST = Script("post.v1", uses=(SERVER_AGE,))
SETTLE = Script("settle.v1", uses=(SPEND_ROWS, LIMITS, ACCOUNTS))
CANCEL = Script("cancel.v1", uses=(LIMITS, ACCOUNTS))
EXTEND_HOLD = Script("extend_hold.v1")
BEGIN_LOAD = Script("begin_load.v1")
FINISH_LOAD = Script("finish_load.v1")
RESET_ACCOUNT = Script("reset_account.v1", uses=(LIMITS, ADMISSION))
NOTIFY = Script("notify.v1")
HEARTBEAT = Script("heartbeat.v1", uses=(SERVER_AGE,))
RECLAIM = Script("reclaim.v1", uses=(SERVER_AGE,))
GIVE_BACK = Script("give_back.v1", uses=(SPEND_ROWS,))
BURY = Script("bury.v1")
RENEW_INBOX = Script("renew_inbox.v1")
APPEND_CHUNK = Script("append_chunk.v1", uses=(UPLOADS,))
TAKE_CHUNK = Script("take_chunk.v1", uses=(UPLOADS,))
DROP_UPLOAD = Script("drop_upload.v1", uses=(UPLOADS,))
CACHE_PUT = Script("cache_put.v1")

ALL = (
    *(ADMIT, ATTEMPT, POST, SETTLE, CANCEL, NOTIFY),
    *(HEARTBEAT, RECLAIM, GIVE_BACK, BURY, RENEW_INBOX),
    *(APPEND_CHUNK, TAKE_CHUNK, DROP_UPLOAD, CACHE_PUT),
    *(PROBE, EXTEND_HOLD, BEGIN_LOAD, FINISH_LOAD, RESET_ACCOUNT),
)
