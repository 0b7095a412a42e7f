"""Files are replaced whole: a user's keeps its mode and its links, one of ours is private."""

from pathlib import Path

from api.cli.files import replace_kept, replace_private


def test_a_users_file_keeps_its_mode_and_the_links_to_it(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o664)
    link.symlink_to(file)
    replace_kept(link, b"new")
    assert (link.is_symlink(), file.read_text()) == (True, "new")
    assert file.stat().st_mode & 0o777 == 0o664
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_file_of_ours_is_private_whatever_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o666)
    replace_private(file, b"new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
