"""Who is asking: the caller an API key (or the master key, or open mode) resolves to."""

from typing import Literal

import msgspec

from shared.account import Account

UserField = Literal["attribute", "bill"]
AttestationWish = Literal["record", "require"]

DEFAULT_TENANT = "default"
ANONYMOUS = "anonymous"

DRYRUN_SCOPE = "dryrun"
CACHE_SCOPE = "cache"
BILL_OTHERS_SCOPE = "bill_others"
Scope = Literal["dryrun", "cache", "bill_others"]
"""What a key may be given to do beside asking."""


class Caller(msgspec.Struct, frozen=True):
    """The identity a request runs and is billed under."""

    tenant: str
    user: str
    key_id: str | None
    """The key's public id; None for the master key and in open mode."""

    is_master: bool = False
    best_lane: str = "priority"
    """The best lane this key may ask for with `service_tier`."""

    scopes: frozenset[str] = frozenset()
    allowed_models: frozenset[str] | None = None
    """None: every model."""

    user_field: str = "attribute"
    """`attribute`: the body's `user` is a label. `bill`: it names the billed user."""

    accounts: tuple[Account, ...] = ()
    """Those of the billed user and of the key that have a budget or limits."""

    attestation: AttestationWish | None = None
    """What its key wants of confidential models beyond what they are set to; None: nothing."""

    user_is_blocked: bool = False
    """Nothing is done for such a caller."""

    @property
    def bills_selector(self) -> bool:
        """Whether the body's `user` names the billed user."""
        return self.is_master or self.user_field == "bill"

    @property
    def is_billed(self) -> bool:
        """Whether it is this caller's own user who pays, whatever the body says, and may."""
        return not (self.key_id is None or self.user_is_blocked or self.user_field == "bill")


ANONYMOUS_CALLER = Caller(tenant=ANONYMOUS, user=ANONYMOUS, key_id=None)
MASTER_CALLER = Caller(tenant=DEFAULT_TENANT, user="master", key_id=None, is_master=True)
