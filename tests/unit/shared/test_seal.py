"""Sealing: what is sealed opens only where it belongs, under a key we have."""

import os

import pytest

from shared.seal import Seal, SealBroken

KEY, OTHER = os.urandom(32), os.urandom(32)


def test_what_one_process_seals_another_opens() -> None:
    assert Seal([KEY]).open(Seal([KEY]).seal(b"prompt", b"job:1"), b"job:1") == b"prompt"


def test_the_plain_text_is_not_in_the_sealed_value() -> None:
    assert b"prompt" not in Seal([KEY]).seal(b"prompt", b"job:1")


def test_a_value_bound_to_another_owner_does_not_open() -> None:
    with pytest.raises(SealBroken):
        Seal([KEY]).open(Seal([KEY]).seal(b"prompt", b"job:1"), b"job:2")


@pytest.mark.parametrize("at", [0, 1, 5, 21, 40, -1])
def test_a_changed_byte_anywhere_is_noticed(at: int) -> None:
    sealed = bytearray(Seal([KEY]).seal(b"a prompt of some length", b"job:1"))
    sealed[at] ^= 1
    with pytest.raises(SealBroken):
        Seal([KEY]).open(bytes(sealed), b"job:1")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"x" * 33])
def test_a_stump_does_not_open(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        Seal([KEY]).open(sealed, b"job:1")


def test_keys_rotate_the_first_seals_and_all_open() -> None:
    old = Seal([OTHER]).seal(b"prompt", b"x")
    rotated = Seal([KEY, OTHER])
    assert rotated.open(old, b"x") == b"prompt"
    with pytest.raises(SealBroken):
        Seal([OTHER]).open(rotated.seal(b"prompt", b"x"), b"x")


def test_no_nonce_repeats_within_a_process() -> None:
    seal = Seal([KEY])
    heads = {seal.seal(b"same", b"x")[:33] for _ in range(1000)}
    assert len(heads) == 1000


def test_a_key_for_another_purpose_is_the_same_in_every_process_and_seals_nothing() -> None:
    assert Seal([KEY]).key_for(b"a") == Seal([KEY, OTHER]).key_for(b"a")
    assert len({Seal([KEY]).key_for(b"a"), Seal([KEY]).key_for(b"b"), KEY}) == 3
    assert Seal([OTHER]).key_for(b"a") != Seal([KEY]).key_for(b"a")
    with pytest.raises(SealBroken):
        Seal([Seal([KEY]).key_for(b"a")]).open(Seal([KEY]).seal(b"prompt", b"x"), b"x")


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Seal([b"short"])
