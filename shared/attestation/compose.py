"""Compose: which software a machine runs, as its registers and its configuration have it."""

import hashlib
import re

import msgspec

from shared.attestation.event_log import Replay
from shared.attestation.factor import Factor, failed, passed, skipped, unknown
from shared.attestation.policy import Policy
from shared.attestation.quote import Quote
from shared.attestation.report import Attestation, Shape

NOT_DSTACK: tuple[Shape, ...] = ("chutes", "tinfoil")
SHOWS_NO_COMPOSE: tuple[Shape, ...] = ("aci-b", "aci-c")
"""Their report proves the hash of a text that it does not hold."""
_IMAGE = re.compile(r"^[ \t]*image:[ \t]*(\S+)", re.MULTILINE)
_DEVELOPMENT = re.compile(r"(^|-)dev(-|$)")


class Software(msgspec.Struct, frozen=True):
    """compose_hash, compose_known and os_image_known. The hashes are empty unless they are proven."""

    factors: tuple[Factor, ...]
    compose_hash: str = ""
    os_image_hash: str = ""


def check_software(
    attestation: Attestation,
    shape: Shape,
    quote: Quote | None,
    log: Replay | None,
    *,
    is_replayed: bool,
    policy: Policy,
) -> Software:
    """`is_replayed`: the log is what the registers of a verified quote say."""
    if shape in NOT_DSTACK:
        return _without("skip", "not a dstack machine")
    if quote is None or log is None or log.fault:
        return _without("unknown", "there is no event log to tell by")
    compose = _compose(attestation, shape, quote, log, is_replayed=is_replayed)
    proven = compose.status == "pass"
    compose_hash = log.measurements("compose-hash")[0].hex() if proven else ""
    image_hash = platform_hash(quote) if is_replayed else ""
    image = _image(image_hash, log, attestation.image, policy)
    return Software((compose, _known(compose_hash, image, policy), image), compose_hash, image_hash)


def _without(status: str, reason: str) -> Software:
    make = skipped if status == "skip" else unknown
    return Software(
        (
            make("compose_hash", "event_log", reason),
            unknown("compose_known", "policy", reason),
            unknown("os_image_known", "policy", reason),
        )
    )


def _compose(
    attestation: Attestation, shape: Shape, quote: Quote, log: Replay, *, is_replayed: bool
) -> Factor:
    found = log.measurements("compose-hash")
    if len(found) != 1:
        told = f"the boot measured {len(found)} composes, not one"
        return failed("compose_hash", "event_log", told)
    served = attestation.app_compose
    if served and hashlib.sha256(served.encode()).digest() != found[0]:
        return failed(
            "compose_hash", "report", "the compose that was served is not the measured one"
        )
    if fault := _configured(quote.mr_config_id, found[0]):
        return failed("compose_hash", "quote", fault)
    if not is_replayed:
        return unknown("compose_hash", "event_log", "the event log is not proven")
    if not served and shape not in SHOWS_NO_COMPOSE:
        return unknown("compose_hash", "report", "the report does not hold the compose")
    return passed("compose_hash", "event_log", _told(found[0], quote.mr_config_id, served))


def _configured(mr_config_id: bytes, compose_hash: bytes) -> str:
    """Why the machine's configuration contradicts; older hosts leave it empty."""
    if not any(mr_config_id):
        return ""
    if mr_config_id[0] != 1:
        return f"a configuration id of an unknown form ({mr_config_id[0]})"
    same = mr_config_id[1:33] == compose_hash
    return "" if same else "the configuration id is of another compose than the measured one"


def _told(compose_hash: bytes, mr_config_id: bytes, served: str) -> str:
    bound = "RTMR3 and the configuration id" if any(mr_config_id) else "RTMR3 alone"
    told = f"{compose_hash.hex()}, bound by {bound}"
    if not served:
        return f"{told}; the report does not show the compose itself"
    images = _IMAGE.findall(served.replace("\\n", "\n"))
    pinned = sum("@sha256:" in one and "$" not in one for one in images)
    return f"{told}; {pinned} of {len(images)} images named by digest"


def _known(compose_hash: str, image: Factor, policy: Policy) -> Factor:
    """The operating system writes RTMR3: any may say there that it runs a compose."""
    if not compose_hash:
        return unknown("compose_known", "policy", "no compose is proven")
    if not policy.compose_hashes:
        return unknown("compose_known", "policy", "no list of composes is kept")
    if compose_hash not in policy.compose_hashes:
        return failed("compose_known", "policy", compose_hash)
    if image.status == "pass":
        return passed("compose_known", "policy", compose_hash)
    told = f"{compose_hash}, by the word of an unknown operating system"
    return (unknown if policy.os_images else passed)("compose_known", "policy", told)


def platform_hash(quote: Quote) -> str:
    """Of what was measured before the operating system could measure anything itself."""
    return hashlib.sha256(b"".join((quote.mr_td, *quote.rtmrs[:3]))).hexdigest()


def _image(image_hash: str, log: Replay, name: str, policy: Policy) -> Factor:
    """The event `os-image-hash` is the image's own word: it may agree, and never makes it known."""
    if not image_hash:
        return unknown("os_image_known", "policy", "no operating system image is proven")
    own = [one.hex() for one in log.measurements("os-image-hash")]
    told = f"{image_hash}, {' and '.join(own)} by its own word" if own else image_hash
    development = bool(_DEVELOPMENT.search(name))
    told += ", a development image by its own word" if development else ""
    if not policy.os_images:
        return unknown("os_image_known", "policy", f"{told}; no list of images is kept")
    is_known = image_hash in policy.os_images and not development
    return (passed if is_known else failed)("os_image_known", "policy", told)
