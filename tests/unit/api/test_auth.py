from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest

from api.auth import Authenticator
from api.key_cache import KeyCache
from api.record_cache import Entry
from shared.api_key import ApiKey
from shared.caller import ANONYMOUS_CALLER, MASTER_CALLER, Caller
from shared.catalog import Catalog
from shared.clock import StillClock
from shared.document import Auth, Document
from shared.errors import GatewayError, NotAuthenticated, NotPermitted, Overloaded
from shared.postgres.keys import KeyRecord

KEY, OTHER = ApiKey.mint(), ApiKey.mint()
TOKEN, OTHER_TOKEN = KEY.text.encode(), OTHER.text.encode()
MASTER = b"a-master-key-of-some-length"
CLOCK = StillClock()


class NoReader:
    """Unknown keys are asked for here; a test that must not ask a store leaves it unusable."""

    asked = 0

    async def fetch_many(self, public_ids):
        raise AssertionError("no store may be asked")

    async def mark_used(self, public_ids):
        raise AssertionError("no store may be asked")


class Watch:
    def __init__(self, mode: str = "required") -> None:
        self.current = Catalog(Document(auth=Auth(mode=mode)))  # type: ignore[arg-type]


def authenticator(
    *, mode: str = "required", master: bytes = MASTER, is_active: bool = True,
    expires_at: float | None = None, user_is_blocked: bool = False, **more: Any,
) -> Authenticator:  # fmt: skip
    cache = KeyCache(NoReader(), CLOCK)
    for key in (KEY, OTHER):
        record = KeyRecord(
            public_id=key.public_id,
            secret_sha256=key.secret_sha256,
            caller=Caller(
                tenant="default",
                user=key.public_id,
                key_id=key.public_id,
                user_is_blocked=user_is_blocked,
            ),
            expires_at=expires_at,
            is_active=is_active,
            **more,
        )
        cache._entries[key.public_id.encode()] = Entry(record, CLOCK.monotonic() + 1, 0.0)
    return Authenticator(keys=cache, catalog=Watch(mode), master_key=master.decode(), clock=CLOCK)


ACCEPTED = [
    ([(b"authorization", b"Bearer " + TOKEN)], KEY),
    ([(b"authorization", b"bearer " + TOKEN)], KEY),
    ([(b"authorization", b"Bearer  " + TOKEN + b" ")], KEY),
    ([(b"x-api-key", TOKEN)], KEY),
    ([(b"x-api-key", b"Bearer " + TOKEN)], KEY),
    ([(b"otari-key", TOKEN)], KEY),
    ([(b"otari-key", b"Bearer " + TOKEN)], KEY),
    ([(b"anyllm-key", TOKEN)], KEY),
    ([(b"x-anyllm-key", TOKEN)], KEY),
    # The order of the families decides, not the order on the wire.
    ([(b"x-api-key", OTHER_TOKEN), (b"authorization", b"Bearer " + TOKEN)], KEY),
    ([(b"authorization", b"Bearer " + OTHER_TOKEN), (b"otari-key", TOKEN)], KEY),
    ([(b"x-anyllm-key", OTHER_TOKEN), (b"anyllm-key", TOKEN)], KEY),
    ([(b"authorization", b"Bearer " + OTHER_TOKEN), (b"x-anyllm-key", TOKEN)], KEY),
    # An empty one is as good as absent.
    ([(b"otari-key", b""), (b"authorization", b"Bearer " + TOKEN)], KEY),
    ([(b"otari-key", b"  "), (b"x-api-key", TOKEN)], KEY),
]


@pytest.mark.parametrize(("headers", "key"), ACCEPTED)
async def test_the_first_header_with_a_value_names_the_caller(headers, key):
    auth = authenticator()
    headers = [(b"host", b"x"), *headers, (b"accept", b"*/*")]
    assert (await auth.caller(headers)).key_id == key.public_id
    fast = auth.cached(headers)
    assert fast is not None
    assert fast.key_id == key.public_id


REFUSED = [
    ([], "missing_api_key", "Missing Otari-Key, Authorization, or x-api-key header"),
    ([(b"authorization", b"")], "missing_api_key", "Missing Otari-Key"),
    ([(b"authorization", TOKEN)], "invalid_api_key", "Expected 'Bearer <token>'"),
    ([(b"authorization", b"Basic abc")], "invalid_api_key", "Expected 'Bearer <token>'"),
    ([(b"authorization", b"Bearer")], "invalid_api_key", "Expected 'Bearer <token>'"),
    ([(b"authorization", b"Bearer sk-other-123")], "invalid_api_key", "Invalid API key"),
    ([(b"authorization", b"Bearer " + TOKEN + b"x")], "invalid_api_key", "Invalid API key"),
    ([(b"x-api-key", b"\xff\xfe")], "invalid_api_key", "Invalid API key"),
    # A wrong one is not skipped for a right one further down.
    (
        [(b"otari-key", b"nonsense"), (b"authorization", b"Bearer " + TOKEN)],
        "invalid_api_key",
        "Invalid API key",
    ),
    # Right public id, wrong secret.
    (
        [(b"x-api-key", TOKEN[:-1] + (b"a" if TOKEN[-1:] != b"a" else b"b"))],
        "invalid_api_key",
        "Invalid API key",
    ),
]


@pytest.mark.parametrize(("headers", "code", "message"), REFUSED)
async def test_what_is_not_a_key_of_ours_is_refused_without_asking_a_store(headers, code, message):
    auth = authenticator()
    assert auth.cached(headers) is None
    with pytest.raises(NotAuthenticated) as caught:
        await auth.caller(headers)
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"is_active": False}, NotAuthenticated, "API key is inactive"),
        ({"expires_at": CLOCK.now() - 1}, NotAuthenticated, "API key has expired"),
    ],
)
async def test_a_key_that_may_not_be_used_is_refused_with_its_reason(state, error, message):
    auth = authenticator(**state)
    headers = [(b"x-api-key", TOKEN)]
    assert auth.cached(headers) is None
    with pytest.raises(error) as caught:
        await auth.caller(headers)
    assert caught.value.message == message


async def test_a_blocked_users_key_is_known_and_may_do_nothing():
    auth = authenticator(user_is_blocked=True)
    headers = [(b"x-api-key", TOKEN)]
    for known in (auth.cached(headers), await auth.identify(headers)):
        assert known is not None
        assert known.user_is_blocked
    with pytest.raises(NotPermitted) as caught:
        await auth.caller(headers)
    assert caught.value.body().message == f"User '{KEY.public_id}' is blocked"
    assert caught.value.code == "user_blocked"


NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"])
async def test_a_key_bound_to_networks_works_from_inside_them(address):
    auth = authenticator(networks=NETWORKS)
    headers = [(b"x-api-key", TOKEN)]
    assert auth.cached(headers, address) is not None
    assert (await auth.caller(headers, address)).key_id == KEY.public_id


@pytest.mark.parametrize("address", ["11.1.2.3", "::ffff:11.1.2.3", "::1", "/run/socket", "", None])
async def test_a_key_bound_to_networks_is_refused_from_anywhere_else(address):
    auth = authenticator(networks=NETWORKS)
    headers = [(b"x-api-key", TOKEN)]
    assert auth.cached(headers, address) is None
    with pytest.raises(NotPermitted) as caught:
        await auth.caller(headers, address)
    assert caught.value.code == "address_not_allowed"


@pytest.mark.parametrize(("until", "works"), [(CLOCK.now() + 1, True), (CLOCK.now(), False)])
async def test_the_secret_before_a_rotation_works_until_the_overlap_ends(until, works):
    before = ApiKey(KEY.public_id, OTHER.secret)
    auth = authenticator(previous_sha256=before.secret_sha256, previous_valid_until=until)
    headers = [(b"x-api-key", before.text.encode())]
    assert (auth.cached(headers) is not None) == works
    assert auth.cached([(b"x-api-key", TOKEN)]) is not None
    if not works:
        with pytest.raises(NotAuthenticated):
            await auth.caller(headers)


async def test_a_key_that_expires_later_works():
    later = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
    caller = await authenticator(expires_at=later).caller([(b"x-api-key", TOKEN)])
    assert caller.key_id == KEY.public_id


async def test_the_master_key_is_a_caller_everywhere():
    auth = authenticator()
    headers = [(b"authorization", b"Bearer " + MASTER)]
    assert await auth.caller(headers) is MASTER_CALLER
    assert auth.cached(headers) is MASTER_CALLER
    assert auth.require_master(headers) is MASTER_CALLER


@pytest.mark.parametrize(
    "token",
    [TOKEN, b"", b"wrong", MASTER + b"x", MASTER[:-1]],
    ids=["a key", "none", "another", "longer", "shorter"],  # the key is another in each run
)
def test_only_the_master_key_opens_management(token):
    with pytest.raises(NotAuthenticated):
        authenticator().require_master([(b"authorization", b"Bearer " + token)])


@pytest.mark.parametrize("token", [b"", b" ", b"anything"])
async def test_an_empty_master_key_matches_nothing(token):
    auth = authenticator(master=b"")
    headers = [(b"otari-key", b"Bearer " + token)]
    assert auth.cached(headers) is None
    with pytest.raises(GatewayError):
        await auth.caller(headers)
    with pytest.raises((Overloaded, NotAuthenticated)):
        auth.require_master(headers)


async def test_open_mode_ignores_the_credential_but_not_on_management_routes():
    auth = authenticator(mode="open")
    for headers in ([], [(b"authorization", b"nonsense")], [(b"x-api-key", TOKEN)]):
        assert await auth.caller(headers) is ANONYMOUS_CALLER
        assert auth.cached(headers) is ANONYMOUS_CALLER
        with pytest.raises(NotAuthenticated):
            auth.require_master(headers)
