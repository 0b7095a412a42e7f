"""What two pytest processes may run side by side, and what they may not."""

from tests.shares import GATEWAYS, share


def test_whole_gateways_follow_each_other_and_other_files_are_shared_out() -> None:
    for given in (False, True):
        for file in ("test_kills.py", "openai_python/test_answers.py"):
            assert share(f"tests/e2e/{file}::test_a[x/y]", valkey_is_given=given) == GATEWAYS
    files = ("tests/unit/test_shares.py", "tests/integration/upstream_transport/test_pool.py")
    assert [share(f"{file}::test_a", valkey_is_given=False) for file in files] == list(files)


def test_servers_that_are_given_serve_one_process() -> None:
    files = ("tests/unit/test_shares.py", "tests/integration/test_runner.py")
    assert len({share(f"{file}::test_a", valkey_is_given=True) for file in files}) == 1
