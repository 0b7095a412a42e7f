import hashlib

import pytest

from shared.api_key import ALPHABET, ApiKey, is_secret, split


def test_a_minted_key_is_of_the_grammar_and_comes_back_from_its_text():
    key = ApiKey.mint()
    assert len(key.text) == len("sk-ollm-") + 12 + 1 + 48
    assert set(key.public_id + key.secret) <= set(ALPHABET)
    assert ApiKey.parse(key.text) == key
    assert split(key.text.encode()) == (key.public_id.encode(), key.secret.encode())


def test_no_two_minted_keys_are_alike():
    keys = [ApiKey.mint() for _ in range(100)]
    assert len({key.public_id for key in keys}) == len({key.secret for key in keys}) == 100


def test_the_secret_is_not_in_the_repr():
    key = ApiKey.mint()
    assert key.secret not in repr(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-ollm-",
        "sk-ollm-" + "a" * 12,
        "sk-ollm-" + "a" * 12 + "-" + "b" * 47,
        "sk-ollm-" + "a" * 12 + "-" + "b" * 49,
        "sk-ollm-" + "a" * 11 + "-" + "b" * 48,
        "sk-ollm-" + "a" * 11 + "é-" + "b" * 48,
        "sk-ollm-" + "a" * 12 + "-" + "b" * 47 + "-",
        "sk-ollm-" + "a" * 12 + "_" + "b" * 48,
        "SK-OLLM-" + "a" * 12 + "-" + "b" * 48,
        " sk-ollm-" + "a" * 12 + "-" + "b" * 48,
        "sk-ollm-" + "a" * 12 + "-" + "b" * 48 + "\n",
        "sk-ollm-" + "a" * 10 + "';-" + "b" * 48,
    ],
)
def test_what_is_not_a_key_by_its_grammar_is_none(text):
    assert ApiKey.parse(text) is None


def test_only_the_secret_behind_a_hash_matches_it():
    key = ApiKey.mint()
    assert key.secret_sha256 == hashlib.sha256(key.secret.encode()).digest()
    assert is_secret(key.secret.encode(), key.secret_sha256)
    other = b"y" if key.secret.startswith("x") else b"x"
    assert not is_secret(other + key.secret.encode()[1:], key.secret_sha256)
