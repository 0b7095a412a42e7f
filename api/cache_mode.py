"""Which mode of the cache a request gets: the one it asks for, as far as it may have it."""

from starlette.types import Message, Send

from api.selection import Selection
from shared.caller import CACHE_SCOPE, Caller
from shared.catalog import Catalog
from shared.dialects.request import InferenceRequest
from shared.document import TIER_OF_TYPE

OFF_HEADER = (b"x-ollm-cache", b"off")
OF_A_DRY_RUN = {"on": "read_only", "write_only": "off"}
"""A dry run leaves nothing behind."""


def cache_mode(
    catalog: Catalog, caller: Caller, request: InferenceRequest, selection: Selection
) -> str:
    """Content of a confidential model outlives its request only where the key allows it."""
    mode = request.cache
    if mode == "off":
        return mode
    if _is_confidential(catalog, selection) and not _is_allowed(caller):
        return "off"
    if _is_panel(catalog, selection):
        return "off"  # its answer is made of several, and of what an evaluator thinks of them
    return OF_A_DRY_RUN.get(mode, mode) if request.dryrun else mode


def _is_allowed(caller: Caller) -> bool:
    return caller.is_master or CACHE_SCOPE in caller.scopes


def _is_panel(catalog: Catalog, selection: Selection) -> bool:
    if not selection.function:
        return False
    return catalog.document.functions[selection.function].variants[selection.variant].is_panel


def _is_confidential(catalog: Catalog, selection: Selection) -> bool:
    if selection.target.model.tier:
        return True
    # Providers are known for their tier, whether or not the catalog gives the model one.
    providers = (
        [selection.pinned_provider]
        if selection.pinned_provider
        else [route.provider for route in selection.target.model.providers]
    )
    return any(TIER_OF_TYPE[catalog.document.providers[name].type] for name in providers)


def saying_off(send: Send) -> Send:
    """Tells the client that its wish for the cache was not granted."""

    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], OFF_HEADER]
        await send(message)

    return said
