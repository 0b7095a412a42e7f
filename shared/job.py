"""A job: one inference on its way through the queue. The header travels open, the body sealed."""

from typing import Literal

import msgspec

from shared.price import Price

LANES = ("priority", "default", "flex", "batch")
"""Best first. The order is also the order of the claim weights 8:4:2:1."""

CACHE_MODES = ("on", "off", "read_only", "write_only")
CACHE_READS = frozenset({"on", "read_only"})
CACHE_WRITES = frozenset({"on", "write_only"})

Lane = Literal["priority", "default", "flex", "batch"]
LANE_OF_TIER = {"priority": "priority", "auto": "default", "default": "default", "flex": "flex"}
"""By OpenAI's `service_tier`."""
TIER_OF_LANE = {"priority": "priority", "default": "default", "flex": "flex", "batch": "flex"}


class JobHeader(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What the queue and the spend row need to know; never content.

    In MessagePack it is an array: fields are only ever added at the end, and are optional, so that
    the jobs of one release can be read by the next and by the one before.
    """

    request_id: str
    endpoint: str = "chat.completions"
    reply_to: str
    """Names the inbox that replies are posted to."""

    lane: str
    tenant: str
    user: str
    key_id: str | None = None
    model: str
    """The catalog's name."""

    asked_model: str = ""
    """The name as the client wrote it; the answer repeats it."""

    pinned_provider: str | None = None
    stream: bool = False
    include_usage: bool = False
    """The client asked for the usage chunk of a stream."""

    config_hash: str
    episode_id: str
    client_request_id: str | None = None
    tags: dict[str, str] = {}
    admitted_at: float
    """Epoch seconds, on the API's clock."""

    queue_seconds: float
    """A job that has waited longer than this is refused with 504."""

    total_seconds: float
    """The whole budget, from admission to the last byte."""

    include_raw_usage: bool = False
    include_raw_response: bool = False
    dryrun: bool = False
    """Nothing is billed, and no row is written."""
    function: str = ""
    variant: str = ""
    """Of a function: the chosen variant, whose model `model` is."""
    variant_is_pinned: bool = False
    """The client named it: no other may answer."""
    cache: str = "off"
    """One of `CACHE_MODES`: what the exact cache may be used for."""
    cache_max_age: float | None = None
    """Seconds: an older entry is not used."""
    prices: dict[str, Price] = {}
    """What the database had in force at admission, by `price_key`; it wins over the catalog."""
    hold_nano: int = 0
    """What the job holds on its budgets, in US nano-dollars."""
    output_caps: dict[str, int] = {}
    """Where a budget bounds the job, by model: the tokens of output that are held for. It goes to the
    provider with a request that has no cap."""
    selector_is_billed: bool = False
    """The body's `user` names the billed user: providers do not get it."""
    attestation: str = "off"
    """`off`, `record` or `require`: the strictest of the models' and the key's."""

    @property
    def queue_deadline(self) -> float:
        return self.admitted_at + self.queue_seconds

    @property
    def deadline(self) -> float:
        return self.admitted_at + self.total_seconds


encode_header = msgspec.msgpack.Encoder().encode
decode_header = msgspec.msgpack.Decoder(JobHeader).decode
