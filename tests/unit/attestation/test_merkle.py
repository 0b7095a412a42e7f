import hashlib
import itertools

import pytest

from shared.attestation.merkle import (
    EMPTY_ROOT,
    CompactRange,
    Place,
    consistency_spans,
    inclusion_spans,
    leaf_hash,
    node_hash,
    places,
    proof_of,
    verify_consistency,
    verify_inclusion,
)

# Of google/certificate-transparency (Apache-2.0): the trees that implementations compare with.
LEAVES = [
    bytes.fromhex(one)
    for one in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = """
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125
aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77
d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7
4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4
76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef
ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c
5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328
""".split()
INCLUSION = {
    (0, 8): """96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7
        5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4""",
    (5, 8): """bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b
        ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0
        d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7""",
    (2, 3): "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    (1, 5): """6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
        5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b""",
}
CONSISTENCY = {
    (1, 1): "",
    (1, 8): INCLUSION[0, 8],
    (6, 8): """0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a
        ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0
        d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7""",
    (2, 5): """5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
        bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b""",
}
MOST = 130


class Tree:
    """A tree as it grows: its nodes, and its root at every size."""

    def __init__(self, leaves):
        self.leaves, growing = [leaf_hash(leaf) for leaf in leaves], CompactRange()
        self.nodes: dict[Place, bytes] = {}
        self.roots = [growing.root()]
        for leaf in self.leaves:
            self.nodes.update(growing.append(leaf))
            self.roots.append(growing.root())

    def inclusion(self, index, size):
        return proof_of(inclusion_spans(index, size), self.nodes)

    def consistency(self, first, second):
        return proof_of(consistency_spans(first, second), self.nodes)


def by_definition(leaves):
    """MTH of RFC 6962 §2.1."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return node_hash(by_definition(leaves[:half]), by_definition(leaves[half:]))


KNOWN = Tree(LEAVES)
LARGE = Tree([b"%d" % number for number in range(MOST)])


def test_the_roots_are_those_of_the_known_trees():
    assert [root.hex() for root in KNOWN.roots] == ROOTS


@pytest.mark.parametrize("at", INCLUSION)
def test_the_proofs_of_inclusion_are_the_known_ones(at):
    assert [one.hex() for one in KNOWN.inclusion(*at)] == INCLUSION[at].split()


@pytest.mark.parametrize("sizes", CONSISTENCY)
def test_the_proofs_of_consistency_are_the_known_ones(sizes):
    assert [one.hex() for one in KNOWN.consistency(*sizes)] == CONSISTENCY[sizes].split()


def test_every_root_is_that_of_the_definition():
    data = [b"%d" % number for number in range(MOST)]
    assert LARGE.roots == [by_definition(data[:size]) for size in range(MOST + 1)]


def test_every_tree_can_be_taken_up_again_by_its_full_subtrees():
    for size in range(MOST):
        taken_up = CompactRange(size, [LARGE.nodes[place] for place in places(0, size)])
        assert taken_up.root() == LARGE.roots[size]
        assert dict(taken_up.append(LARGE.leaves[size])).items() <= LARGE.nodes.items()
        assert taken_up.root() == LARGE.roots[size + 1]


def test_every_leaf_of_every_tree_is_proven_and_no_other_one():
    for size in range(1, MOST + 1):
        for index in range(size):
            proof, leaf = LARGE.inclusion(index, size), LARGE.leaves[index]
            assert verify_inclusion(leaf, index, size, proof, LARGE.roots[size])
            assert not verify_inclusion(
                LARGE.leaves[index - 1 if index else 1], index, size, proof, LARGE.roots[size]
            )
            assert not verify_inclusion(leaf, index + 1, size, proof, LARGE.roots[size])
            assert not verify_inclusion(leaf, index, size, proof, LARGE.roots[size - 1])


def test_every_tree_is_proven_to_begin_with_every_smaller_one():
    for first, second in itertools.combinations_with_replacement(range(MOST + 1), 2):
        proof = LARGE.consistency(first, second)
        roots = LARGE.roots[first], LARGE.roots[second]
        assert verify_consistency(first, second, *roots, proof)
        if first < second:
            assert not verify_consistency(first, second, *roots[::-1], proof)
        for other in (first - 1, first + 1):
            if 0 <= other <= second:
                assert not verify_consistency(other, second, *roots, proof)


@pytest.mark.parametrize(
    ("index", "size"), [(0, 1), (0, 2), (6, 7), (63, 64), (64, 65), (129, 130)]
)
def test_a_proof_of_inclusion_that_was_changed_proves_nothing(index, size):
    leaf, root, proof = LARGE.leaves[index], LARGE.roots[size], LARGE.inclusion(index, size)
    for wrong in changed(proof):
        assert not verify_inclusion(leaf, index, size, wrong, root)
    for at, of in ((-1, size), (index, 0), (index, -size), (size, size), (index, 2**62)):
        assert not verify_inclusion(leaf, at, of, proof, root)
    assert not verify_inclusion(leaf[:-1], index, size, proof, root)


@pytest.mark.parametrize("sizes", [(1, 2), (3, 7), (4, 8), (64, 130), (127, 128), (129, 130)])
def test_a_proof_of_consistency_that_was_changed_proves_nothing(sizes):
    (small, large), proof = sizes, LARGE.consistency(*sizes)
    old, new = LARGE.roots[small], LARGE.roots[large]
    for wrong in changed(proof):
        assert not verify_consistency(small, large, old, new, wrong)
    for first, second in ((-1, 1), (large, small), (0, large), (small, 2**62)):
        assert not verify_consistency(first, second, old, new, proof)


def test_a_tree_is_consistent_with_itself_and_with_nothing_by_no_proof_at_all():
    root, other = LARGE.roots[5], LARGE.roots[6]
    assert verify_consistency(5, 5, root, root, [])
    assert not verify_consistency(5, 5, root, other, [])
    assert not verify_consistency(5, 5, root, root, [root])
    assert verify_consistency(0, 5, EMPTY_ROOT, root, [])
    assert not verify_consistency(0, 5, root, root, [])
    assert not verify_consistency(3, 5, LARGE.roots[3], root, [])


def test_a_proof_takes_few_lookups_whatever_the_size():
    for size in (1, 2**20 - 1, 2**20, 2**20 + 1, 2**40 + 12345):
        for index in (0, size // 3, size - 1):
            spans = [*inclusion_spans(index, size), *consistency_spans(index, size)]
            assert len([place for span in spans for place in places(*span)]) <= 4 * 41


def test_places_are_named_from_the_left():
    assert places(0, 7) == [Place(2, 0), Place(1, 2), Place(0, 6)]
    assert places(4, 7) == [Place(1, 2), Place(0, 6)]
    assert places(0, 0) == []


def test_leaves_and_nodes_are_told_apart():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"") != EMPTY_ROOT


def changed(proof):
    """With every part flipped, left out, doubled, cut; longer; in another order."""
    zero = bytes(32)
    for number, one in enumerate(proof):
        before, after = proof[:number], proof[number + 1 :]
        yield [*before, hashlib.sha256(one).digest(), *after]
        yield [*before, *after]
        yield [*before, one, one, *after]
        yield [*before, one[:-1], *after]
    yield [*proof, zero]
    yield [zero, *proof]
    if len(proof) > 1:
        yield proof[::-1]
