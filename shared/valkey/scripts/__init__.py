"""The queue's Lua scripts. Changing one changes the version in its name; old ones stay a release.

Every connection loads them when it opens, so a server that lost them learns them again.
"""

import hashlib
from importlib.resources import files


class Script:
    """One script, called by the SHA-1 of its text (EVALSHA)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (files(__package__) / f"{name}.lua").read_bytes()
        # The protocol names scripts by SHA-1; nothing secret rests on it.
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


ADMIT = Script("admit.v1")
ATTEMPT = Script("attempt.v1")
POST = Script("post.v1")
SETTLE = Script("settle.v1")
CANCEL = Script("cancel.v1")
NOTIFY = Script("notify.v1")
HEARTBEAT = Script("heartbeat.v1")
RECLAIM = Script("reclaim.v1")
GIVE_BACK = Script("give_back.v1")

ALL = (ADMIT, ATTEMPT, POST, SETTLE, CANCEL, NOTIFY, HEARTBEAT, RECLAIM, GIVE_BACK)
