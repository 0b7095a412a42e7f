"""The numbered files of this release, and how one is cut into statements."""

from shared.clickhouse.migrate import Migration, migrations


def test_the_files_are_numbered_without_a_gap() -> None:
    assert [one.number for one in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_statement_can_be_run_again() -> None:
    for migration in migrations():
        for statement in migration.statements:
            # Lines of that table fold.
            folding = "INSERT INTO scanner_requests"
            repeatable = ("IF NOT EXISTS", "IF EXISTS", "CREATE OR REPLACE", folding)
            assert any(words in statement for words in repeatable), statement[:60]


def test_a_file_is_cut_at_semicolons_that_end_a_line_and_comments_are_left_out() -> None:
    migration = Migration(1, "0001_x", "-- a; b\nSELECT 1, ';x';\n\n  -- c\nSELECT\n2 ;\n")
    assert migration.statements == ["SELECT 1, ';x'", "SELECT\n2"]


def test_another_text_has_another_digest() -> None:
    assert Migration(1, "0001_x", "SELECT 1").digest != Migration(1, "0001_x", "SELECT 2").digest
