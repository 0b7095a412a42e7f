"""The spend row: what one upstream attempt was, used and cost. It never holds content."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

import msgspec

from shared.account import Account, from_ms
from shared.money import ZERO
from shared.price import Price
from shared.usage import Usage

Status = Literal["completed", "failed", "cancelled", "lost"]
UsageSource = Literal["provider", "estimated", "none"]


class SpendRow(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One row per upstream attempt, keyed by `row_id`; repeats of a `row_id` fold into one.

    `lost` means the worker died while the attempt ran: it may have reached the provider.
    In MessagePack it is an array: fields are only ever added at the end, and are optional, so that
    the rows of one release can be read by the next and by the one before.
    """

    row_id: str
    """The attempt's UUIDv7, 32 hex digits, made before the send."""

    request_id: str
    tenant: str
    user: str
    key_id: str | None = None
    episode_id: str | None = None
    client_request_id: str | None = None
    endpoint: str = "chat.completions"
    model: str
    """The catalog's name of the model that was asked for."""

    provider: str
    variant: str = ""
    upstream_model: str
    tier: str = ""
    """TEE, ZDR or empty."""

    lane: str
    config_hash: str
    attempt: int = 1
    streamed: bool = False
    status: Status
    error_code: str | None = None
    finish_reason: str | None = None
    billed: bool = True
    """False for attempts that failed over or were lost: the tenant pays for the one that answered."""

    usage: Usage = Usage()
    usage_source: UsageSource = "none"
    price: Price = Price()
    cost_usd: Decimal = ZERO
    tags: dict[str, str] = {}

    created_at: datetime
    """When the request was admitted."""

    started_at: datetime
    """When the attempt was recorded, just before its send."""

    ended_at: datetime
    ttft_ms: float | None = None
    queue_ms: float = 0.0
    upstream_ms: float = 0.0
    overhead_ms: float = 0.0
    cached: bool = False
    """Answered from the cache: no call was made."""
    service_tier: str = ""
    """The tier that served the call, if the provider said."""

    @property
    def price_details(self) -> str:
        """JSON of the whole price, where it has more than input, output and cached input."""
        price = self.price
        plain = Price(price.input, price.output, price.cached_input)
        return "" if price == plain else encode_price(price).decode()


class Charge(NamedTuple):
    """What a job takes from its accounts: the sum of what its rows are billed."""

    nano: int = 0
    """US nano-dollars."""
    tokens: int = 0


NOTHING = Charge()


def charge_of(rows: Sequence[SpendRow]) -> Charge:
    """Costs are settled: they are whole nano-dollars."""
    nano = tokens = 0
    for row in rows:
        if row.billed:
            nano += int(row.cost_usd.scaleb(9))
            tokens += row.usage.input_tokens + row.usage.output_tokens
    return Charge(nano, tokens) if tokens or nano else NOTHING


class Spender(NamedTuple):
    """A user whose spend is asked for."""

    tenant: str
    user: str
    since: datetime | None
    """None: from the beginning."""


class KeySpender(NamedTuple):
    """A key whose spend is asked for, by its public id."""

    key_id: str
    since: datetime | None


class SpendReader(Protocol):
    """Knows what users have spent: the sum of what was billed to them."""

    async def spent(self, spenders: Sequence[Spender]) -> list[Decimal]:
        """One sum for each, in their order. May block; raises what its store raises."""
        ...

    async def spent_by_keys(self, keys: Sequence[KeySpender]) -> list[Decimal]:
        """As `spent`."""
        ...


async def spent_on(reader: SpendReader, account: Account, since_ms: int) -> Decimal:
    """What the ledger says of a user's or a key's account. Raises what the reader raises."""
    since = from_ms(since_ms) if since_ms else None
    if account.kind == "key":
        [spent] = await reader.spent_by_keys([KeySpender(account.owner, since)])
    else:
        [spent] = await reader.spent([Spender(account.tenant, account.owner, since)])
    return spent


async def spent_between(
    reader: SpendReader, account: Account, since_ms: int, until_ms: int
) -> Decimal:
    """Of requests admitted in a window; both sums go on to the present."""
    until = await spent_on(reader, account, until_ms)
    return max(ZERO, await spent_on(reader, account, since_ms) - until)


encode_price = msgspec.json.Encoder(decimal_format="string").encode
encode_row = msgspec.msgpack.Encoder(decimal_format="string").encode
decode_row = msgspec.msgpack.Decoder(SpendRow).decode
