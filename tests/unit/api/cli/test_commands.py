"""Every command explains itself, in sentences."""

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from api.cli import FAMILIES, commands
from api.cli.config import load_catalog
from api.cli.ready import write_ready
from tests.unit.api.cli.test_ready import READY

PROCESSES = {"api", "worker", "metering", "background", "simulator"}


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - PROCESSES))
def test_each_command_has_a_help_page(name: str):
    shown = CliRunner().invoke(commands([name]), [name, "--help"])
    assert shown.exit_code == 0
    assert "." in shown.output


def test_the_list_of_commands_is_whole():
    shown = CliRunner().invoke(commands(), ["--help"])
    assert all(f" {name} " in shown.output for name in FAMILIES)


def test_a_good_catalog_is_told_by_its_hash():
    shown = CliRunner().invoke(commands(["config"]), ["config", "check"])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"{load_catalog(None).hash}: ")


def test_a_bad_catalog_is_refused_with_the_place_and_the_reason(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('[models.m]\nproviders = [{ provider = "none", upstream_model = "x" }]\n')
    shown = CliRunner().invoke(commands(["config"]), ["config", "check", str(file)])
    assert shown.exit_code == 1
    assert "models.m: there is no provider 'none'" in shown.output


@pytest.mark.parametrize(("url", "is_told"), [("http://127.0.0.1:9", False), (None, True)])
def test_a_provider_that_a_running_gateway_simulates_is_not_said_to_be_off(
    tmp_path, url: str | None, is_told: bool
):
    write_ready(tmp_path, replace(READY, simulator_url=url))
    asked = ["config", "check", "--data-dir", str(tmp_path)]
    shown = CliRunner().invoke(commands(["config"]), asked)
    assert ("provider near_sim is off while GATEWAY_SIMULATOR_KEY" in shown.stderr) is is_told
    assert "provider near is off while NEAR_API_KEY is not set" in shown.stderr


@pytest.mark.parametrize(
    ("allow", "price", "is_told"),
    [("all", "1", True), ("all", "0", False), ("scoped", "1", False)],
)
def test_free_dry_runs_beside_prices_are_told(tmp_path, allow: str, price: str, is_told: bool):
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[dryrun]\nallow = "{allow}"\n[providers.p]\n[models.m]\n'
        f'providers = [{{ provider = "p", upstream_model = "m", price = {{ output = {price} }} }}]\n'
    )
    shown = CliRunner().invoke(commands(["config"]), ["config", "check", str(file)])
    assert shown.exit_code == 0
    assert ('set dryrun.allow = "scoped"' in shown.stderr) is is_told
    assert "dryrun" not in shown.stdout
