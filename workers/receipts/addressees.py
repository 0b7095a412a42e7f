"""Aims: a transcript's target, which is its provider as the catalog it ran under has it."""

import structlog

from shared.catalog_checks import CatalogInvalid
from shared.postgres.catalog_watch import CatalogWatch
from shared.postgres.engine import STORE_ERRORS
from shared.transcript import Transcript
from workers.attestation.fetcher import EvidenceAway
from workers.attestation.target import Target, Targets

log = structlog.get_logger()


class Addressees:
    """Where the catalog is gone, or has the provider no more, the one in force is asked."""

    def __init__(self, catalogs: CatalogWatch, targets: Targets) -> None:
        self._catalogs = catalogs
        self._targets = targets

    async def of(self, transcript: Transcript) -> Target | None:
        """None while neither can be had."""
        try:
            catalog = await self._catalogs.by_hash(transcript.config_hash)
        except (*STORE_ERRORS, CatalogInvalid) as error:
            log.warning("A catalog cannot be loaded", action="catalog_away", error=repr(error))
            return None
        try:
            return self._targets.of(
                (catalog or self._catalogs.current).document,
                provider=transcript.provider,
                model=transcript.model,
                upstream_model=transcript.upstream_model,
            )
        except EvidenceAway:
            return None
