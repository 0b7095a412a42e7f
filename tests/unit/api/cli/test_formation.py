"""The processes of one machine, their order, and what their environment holds."""

from pathlib import Path

from api.cli.formation import DRAIN_ORDER, Formation, Options, child_environment
from api.cli.secrets import Secrets

SECRETS = Secrets(master_key="m", seal_key="s", simulator_key="k")
ADDRESSES = {"VALKEY_URL": "redis://here", "DATABASE_URL": "pg://here", "CLICKHOUSE_URL": "ch"}


def formation(tmp_path: Path) -> Formation:
    options = Options(
        host="127.0.0.1",
        port=8000,
        data_dir=tmp_path,
        config=Path("/etc/gateway.toml"),
        apis=2,
        workers=3,
        simulator=True,
    )
    return Formation(options, {}, drain_seconds=30.0)


def test_as_many_processes_of_each_role_as_were_asked_for(tmp_path: Path):
    roles = [command.role for command in formation(tmp_path).gateway(7)]
    counts = {role: roles.count(role) for role in roles}
    assert counts == {"background": 1, "metering": 1, "worker": 3, "api": 2}


def test_who_accepts_requests_starts_last_and_ends_first(tmp_path: Path):
    started = list(dict.fromkeys(command.role for command in formation(tmp_path).gateway(7)))
    assert started == [role for role in reversed(DRAIN_ORDER) if role != "simulator"]


def test_only_api_processes_are_handed_the_listening_socket(tmp_path: Path):
    for command in formation(tmp_path).gateway(7):
        assert command.pass_fds == ((7,) if command.role == "api" else ())


def test_a_process_has_longer_to_end_than_it_allows_itself(tmp_path: Path):
    assert all(command.drain_seconds > 30.0 for command in formation(tmp_path).gateway(7))


def test_every_process_has_a_log_of_its_own(tmp_path: Path):
    logs = [command.log for command in formation(tmp_path).gateway(7)]
    assert len(set(logs)) == len(logs)


def test_release_is_given_the_chosen_catalog(tmp_path: Path):
    assert formation(tmp_path).release().argv[-2:] == ("--config", "/etc/gateway.toml")


def test_children_see_what_we_see_and_what_was_decided():
    environment = child_environment(
        {
            "NEAR_API_KEY": "theirs",
            "VALKEY_URL": "redis://elsewhere",
            "GATEWAY_BOOTSTRAP_API_KEY": "true",
        },
        addresses=ADDRESSES,
        secrets=SECRETS,
        simulator_url="http://127.0.0.1:9",
        data_dir=Path("/data"),
    )
    assert environment == {
        **ADDRESSES,
        "NEAR_API_KEY": "theirs",
        "GATEWAY_MASTER_KEY": "m",
        "GATEWAY_SEAL_KEYS": "s",
        "GATEWAY_SIMULATOR_URL": "http://127.0.0.1:9",
        "GATEWAY_SIMULATOR_KEY": "k",
        "GATEWAY_ATTESTATION_ROOTS": "/data/tee/roots.json",
        "GATEWAY_BOOTSTRAP_API_KEY": "false",
        "PYTHONUNBUFFERED": "1",
    }


def test_without_the_simulator_its_providers_stay_off():
    environment = child_environment(
        {}, addresses=ADDRESSES, secrets=SECRETS, simulator_url=None, data_dir=Path("/data")
    )
    told = ("GATEWAY_SIMULATOR", "GATEWAY_ATTESTATION_ROOTS")
    assert not any(name.startswith(told) for name in environment)


def test_roots_of_trust_that_somebody_named_are_kept():
    environment = child_environment(
        {"GATEWAY_ATTESTATION_ROOTS": "/theirs.json"},
        addresses=ADDRESSES,
        secrets=SECRETS,
        simulator_url="http://127.0.0.1:9",
        data_dir=Path("/data"),
    )
    assert environment["GATEWAY_ATTESTATION_ROOTS"] == "/theirs.json"


def test_a_synthetic_tee_is_minted_once(tmp_path: Path):
    command = formation(tmp_path).mint()
    assert command is not None
    assert command.argv[-3:] == ("workers.simulator", "mint", str(tmp_path / "tee"))
    (tmp_path / "tee").mkdir()
    (tmp_path / "tee" / "roots.json").touch()
    assert formation(tmp_path).mint() is None


def test_the_simulator_uses_the_tee_that_was_minted(tmp_path: Path):
    assert formation(tmp_path).simulator(7).argv[-2:] == ("--tee", str(tmp_path / "tee"))
