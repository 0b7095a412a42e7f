"""One upstream attempt, and the spend row it becomes however it ends."""

from decimal import Decimal

from msgspec.structs import replace

from shared.clock import Clock, utc
from shared.ids import new_id
from shared.job import JobHeader
from shared.money import ZERO
from shared.spend import SpendRow, Status, UsageSource, decode_row, encode_row
from shared.usage import CHARACTERS_PER_TOKEN, Usage, audio_estimate, highest
from workers.inference.digests import Digests
from workers.inference.permit import Permit
from workers.inference.recording import Recording
from workers.inference.routing import Route


class Attempt:
    """From the record before the send to the row at the end.

    Counts what arrives, so that a call which ends without the provider's usage is still metered.
    """

    recording: Recording | None = None
    """Where the answer may be kept: the exchange adds what the provider sends."""
    permit: Permit | None = None
    """Where attestation is required: under which session it may be sent, and to which key."""
    digests: Digests | None = None
    """Of a call that is to have a receipt: the exchange adds what it reads and what it passes on."""
    upstream_id = ""
    """What the provider calls its answer, once it has said."""

    def __init__(
        self, header: JobHeader, route: Route, *, tier: str, number: int, claimed_at: float,
        input_estimate: int, clock: Clock,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._started = clock.monotonic()
        self._first_content: float | None = None
        self.usage: Usage | None = None
        self.deltas = 0
        self.characters = 0
        self._audio_bytes = 0
        self.audio_seconds = ZERO
        """Of what was heard, where the answer tells."""
        self.finish_reason: str | None = None
        self.service_tier = ""
        """That served the call, once the provider has said."""
        self._admitted_at = header.admitted_at
        now = utc(clock.now())
        # In two steps: of more than 15 named arguments Python makes a dict, which costs as much again.
        row = SpendRow(
            row_id=new_id(),
            request_id=header.request_id,
            tenant=header.tenant,
            user=header.user,
            model=route.model,
            provider=route.provider.name,
            upstream_model=route.upstream_model,
            lane=header.lane,
            config_hash=header.config_hash,
            status="lost",
            error_code="worker_lost",
            billed=False,
            created_at=utc(header.admitted_at),
            started_at=now,
            ended_at=now,
        )
        self.row = replace(
            row,
            key_id=header.key_id,
            episode_id=header.episode_id,
            client_request_id=header.client_request_id,
            endpoint=header.endpoint,
            variant=route.variant_name,
            tier=tier,
            attempt=number,
            streamed=header.stream,
            usage=Usage(input_tokens=input_estimate),  # what a lost call is metered by
            price=header.prices.get(route.price_key, route.price),
            tags=header.tags,
            queue_ms=max(0.0, claimed_at - header.admitted_at) * 1000,
        )

    @property
    def row_id(self) -> str:
        return self.row.row_id

    def recorded(self) -> bytes:
        """The row as it stands if this worker dies now."""
        return encode_row(self.row)

    def content_arrived(self, characters: int, *, deltas: int = 1) -> None:
        if self._first_content is None:
            self._first_content = self._clock.monotonic()
        self.deltas += deltas
        self.characters += characters

    def audio_sent(self, size: int) -> None:
        self._audio_bytes += size

    def usage_arrived(self, usage: Usage) -> None:
        self.usage = highest(self.usage, usage)

    @property
    def output_seen(self) -> int:
        return max(self.deltas, self.characters // CHARACTERS_PER_TOKEN)

    @property
    def ttft_seconds(self) -> float | None:
        return None if self._first_content is None else self._first_content - self._started

    @property
    def upstream_seconds(self) -> float:
        return self._clock.monotonic() - self._started

    @property
    def cost_if_complete(self) -> Decimal:
        """Of its row, were the answer whole now."""
        usage, _ = self._metered(billed=True)
        return self.row.price.cost(usage, self.service_tier)

    def ended(self, status: Status, *, error_code: str | None, billed: bool) -> SpendRow:
        """The final row."""
        usage, source = self._metered(billed=billed)
        now = self._clock.now()
        upstream_ms = self.upstream_seconds * 1000
        total_ms = (now - self._admitted_at) * 1000
        ttft = self.ttft_seconds
        return replace(
            self.row,
            status=status,
            error_code=error_code,
            finish_reason=self.finish_reason,
            billed=billed,
            usage=usage,
            usage_source=source,
            cost_usd=self.row.price.cost(usage, self.service_tier) if billed else ZERO,
            service_tier=self.service_tier,
            ended_at=utc(now),
            ttft_ms=None if ttft is None else ttft * 1000,
            upstream_ms=upstream_ms,
            overhead_ms=max(0.0, total_ms - upstream_ms - self.row.queue_ms),
        )

    def _metered(self, *, billed: bool) -> tuple[Usage, UsageSource]:
        if self.usage is not None:
            return self.usage, "provider"
        if not billed and not self.deltas:
            return Usage(), "none"
        heard = audio_estimate(self._audio_bytes, self.audio_seconds)
        estimated = Usage(
            input_tokens=self.row.usage.input_tokens + heard.input_tokens,
            output_tokens=self.output_seen,
            seconds=heard.seconds,
        )
        return estimated, "estimated"


def lost_row(recorded: bytes, *, clock: Clock, spoke: bool, output_seen: int) -> SpendRow:
    """The row of an attempt whose worker died: it may have reached the provider.

    If the client got a part of the answer, it pays for what the last heartbeat counted. Those parts
    are of the call that was streamed: beside it a job may have calls of candidates.
    """
    row = decode_row(recorded)
    spoke = spoke and row.streamed
    usage = Usage(input_tokens=row.usage.input_tokens, output_tokens=output_seen)
    if not spoke:
        usage = Usage()
    return replace(
        row,
        status="lost",
        error_code="worker_lost",
        billed=spoke,
        usage=usage,
        usage_source="estimated" if spoke else "none",
        cost_usd=row.price.cost(usage) if spoke else ZERO,
        ended_at=utc(clock.now()),
    )
