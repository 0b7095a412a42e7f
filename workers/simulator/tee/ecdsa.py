"""Raw ECDSA signatures, as Intel, NVIDIA and JOSE write them: r and s side by side."""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from workers.simulator.tee.certificate import digest_of


def sign_raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest_of(key))))
    size = key.curve.key_size // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def public_raw(key: ec.EllipticCurvePrivateKey) -> bytes:
    """x and y."""
    numbers = key.public_key().public_numbers()
    size = key.curve.key_size // 8
    return numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
