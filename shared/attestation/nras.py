"""NRAS: NVIDIA's own word on the firmware of GPUs, as tokens it signed."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from shared.attestation.encoding import from_base64, from_hex, from_json, member, text_member
from shared.attestation.factor import Factor, failed, passed, unknown
from shared.attestation.roots import Roots

_ALGORITHM = "ES384"
_OPTIONS: Any = {
    # Times are checked against the `now` that is asked about, not against this minute's.
    "verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False,
    "require": ["iss", "nbf", "exp", "eat_nonce"],
}  # fmt: skip

_UNREADABLE = (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, RecursionError)

Claims = Mapping[str, Any]


class _Refused(Exception):
    """Why a token or an answer is not accepted."""


def check_nras(answer: str, keys: str, nonce: str, gpus: int, now: float, roots: Roots) -> Factor:
    """gpu_measurements, of an answer of `/v3/attest/gpu` about as many GPUs as the report has."""
    if not answer or not keys:
        return unknown("gpu_measurements", "nras", "NVIDIA's answer is not there")
    ours = from_hex(nonce, 32)
    if ours is None:
        return unknown("gpu_measurements", "nras", "no nonce of ours is known")
    try:
        return passed("gpu_measurements", "nras", _told(answer, keys, ours, gpus, now, roots))
    except _Refused as error:
        return failed("gpu_measurements", "nras", str(error))


def _told(answer: str, keys: str, nonce: bytes, gpus: int, now: float, roots: Roots) -> str:
    overall_token, tokens = _tokens(answer)
    if gpus < 1:
        raise _Refused("the report has no GPU that it could be about")
    if len(tokens) != gpus:
        raise _Refused(f"it is about {len(tokens)} GPUs, not {gpus}")
    overall, certified = _read("the overall token", overall_token, keys, nonce, now, roots)
    if overall.get("x-nvidia-overall-att-result") is not True:
        raise _Refused("the overall result is not true")
    _compare(overall.get("submods"), tokens)
    models = set()
    for name, token in tokens.items():
        claims, _ = _read(f"the token of {name}", token, keys, nonce, now, roots)
        models.add(_measured(name, claims))
    return f"{gpus} GPUs ({', '.join(sorted(models))}) measure as NVIDIA published; {certified}"


def _tokens(answer: str) -> tuple[str, dict[str, str]]:
    """`[["JWT", overall], {"GPU-0": token, ...}]`."""
    match from_json(answer):
        case [["JWT", str(overall)], dict(tokens)] if all(
            isinstance(one, str) and name == f"GPU-{index}"
            for index, (name, one) in enumerate(sorted(tokens.items(), key=_place))
        ):
            return overall, tokens
        case _:
            pass
    raise _Refused("it is not an answer of NVIDIA's")


def _place(item: tuple[str, object]) -> int:
    digits = item[0].removeprefix("GPU-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else -1


def _read(
    what: str, token: str, keys: str, nonce: bytes, now: float, roots: Roots
) -> tuple[Claims, str]:
    """Its claims, and who certified its key."""
    try:
        header = jwt.get_unverified_header(token)
        if header.get("alg") != _ALGORITHM:  # said here, so that `none` is named as what it is
            raise _Refused(f"{what} is not signed with {_ALGORITHM}")
        key, certified = _key(header.get("kid"), keys)
        claims = jwt.decode(
            token, key, algorithms=[_ALGORITHM], issuer=roots.nras_issuer, options=_OPTIONS
        )
    except _UNREADABLE as error:
        raise _Refused(f"{what} is refused: {type(error).__name__}") from error
    if from_hex(claims["eat_nonce"], 32) != nonce:
        raise _Refused(f"{what} has another nonce than ours")
    if not _is_number(claims["nbf"]) or not claims["nbf"] <= now:
        raise _Refused(f"{what} is not valid yet")
    if not _is_number(claims["exp"]) or not now <= claims["exp"]:
        raise _Refused(f"{what} has expired")
    return claims, certified


def _key(kid: object, keys: str) -> tuple[ec.EllipticCurvePublicKey, str]:
    """Raises ValueError and what PyJWT raises."""
    given = member(from_json(keys), "keys")
    found = [one for one in given if member(one, "kid") == kid] if isinstance(given, list) else []
    if not isinstance(kid, str) or len(found) != 1:
        raise _Refused("its key is not among the given ones")
    key = jwt.algorithms.ECAlgorithm.from_jwk(
        {name: text_member(found[0], name) for name in ("kty", "crv", "x", "y")}
    )
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _Refused("its key is not on P-384")
    return key, _certified(key, member(found[0], "x5c"))


def _certified(key: ec.EllipticCurvePublicKey, x5c: object) -> str:
    """What the key's certificates say. They are kept with it, but their root is not pinned."""
    if not isinstance(x5c, list) or not x5c:
        return "its key has no certificate"
    leaf = x509.load_der_x509_certificate(from_base64(x5c[0]) or b"")
    if leaf.public_key() != key:
        raise _Refused("its key is not the one of its certificate")
    return "its key has a certificate, whose root is not checked"


def _compare(submods: object, tokens: Mapping[str, str]) -> None:
    """The overall token names the digest of the text of each other one, and no more."""
    expected = {
        name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
        for name, token in tokens.items()
    }
    if submods != expected:
        raise _Refused("the overall token is not about these GPU tokens")
    if len(set(tokens.values())) < len(tokens):
        raise _Refused("one GPU is told twice")


def _measured(name: str, claims: Claims) -> str:
    """The GPU's model."""
    model = claims.get("hwmodel")
    if claims.get("measres") != "success":
        raise _Refused(f"the measurements of {name} do not match")
    if claims.get("dbgstat") != "disabled":
        raise _Refused(f"{name} can be debugged")
    if claims.get("secboot") is not True:
        raise _Refused(f"{name} did not boot securely")
    if not isinstance(model, str) or not model:
        raise _Refused(f"{name} has no hardware model")
    return model


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
