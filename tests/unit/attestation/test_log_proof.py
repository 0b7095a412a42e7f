import msgspec
import pytest

from shared.attestation.log_proof import LogProof, log_proof, verify_log_proof
from shared.attestation.merkle import CompactRange, inclusion_spans, leaf_hash, proof_of
from shared.attestation.signing import ReceiptKey

KEY, OTHER = ReceiptKey(b"\x01" * 32), ReceiptKey(b"\x02" * 32)
SIZE, INDEX = 7, 4
LEAVES = [leaf_hash(b"%d" % number) for number in range(SIZE)]


def made() -> LogProof:
    tree = CompactRange()
    nodes = dict(node for leaf in LEAVES for node in tree.append(leaf))
    head = KEY.sign_head(SIZE, tree.root(), 1.5)
    path = proof_of(inclusion_spans(INDEX, SIZE), nodes)
    return log_proof(INDEX, LEAVES[INDEX], path, head, KEY.public_key)


def test_a_proof_holds_for_its_receipt_after_a_round_trip():
    read = msgspec.json.decode(msgspec.json.encode(made()), type=LogProof)
    assert read == made()
    assert verify_log_proof(read, LEAVES[INDEX]) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"leaf_index": 3}, "not in the head's tree"),
        ({"leaf_index": -1}, "not in the head's tree"),
        ({"leaf_index": SIZE}, "not in the head's tree"),
        ({"leaf_hash": LEAVES[0].hex()}, "another receipt's"),
        ({"inclusion_proof": made().inclusion_proof[:-1]}, "not in the head's tree"),
        ({"inclusion_proof": ()}, "not in the head's tree"),
        ({"inclusion_proof": ("zz",)}, "not hex"),
        ({"public_key": OTHER.public_key.hex()}, "signature"),
        ({"public_key": ""}, "signature"),
        ({"public_key": "x"}, "not hex"),
        ({"head": OTHER.sign_head(SIZE, b"r" * 32, 1.5)}, "signature"),
        ({"head": KEY.sign_head(SIZE, b"r" * 32, 1.5)}, "not in the head's tree"),
        ({"head": KEY.sign_head(0, b"", 1.5)}, "not in the head's tree"),
        ({"head": msgspec.structs.replace(made().head, tree_size=8)}, "signature"),
        ({"head": msgspec.structs.replace(made().head, root_hash="zz")}, "not hex"),
    ],
)
def test_a_proof_that_was_changed_says_what_is_wrong(change, reason):
    assert reason in verify_log_proof(msgspec.structs.replace(made(), **change), LEAVES[INDEX])


def test_a_proof_of_another_receipt_proves_nothing_of_this_one():
    assert verify_log_proof(made(), LEAVES[0]) == "another receipt's leaf"
