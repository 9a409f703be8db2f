"""What a user may not where the store's file is to be, said before anything is opened."""

import os
import stat
from pathlib import Path

import pytest

from edge.store.access import User, obstacle, this_user, user_of

OTHER = User(os.getuid() + 12345, {os.getgid() + 12345})


def test_nothing_stands_in_the_way_of_a_file_that_can_be_made(tmp_path: Path) -> None:
    assert obstacle(tmp_path / "not" / "there" / "edge.db") is None
    (tmp_path / "edge.db").touch()
    assert obstacle(tmp_path / "edge.db") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edge.db"]


def test_what_is_no_directory_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is no directory" in str(obstacle(tmp_path / "file" / "edge.db"))
    assert f"{tmp_path} is no file" in str(obstacle(tmp_path))


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A directory that everybody can reach."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o711)
    return tmp_path


@pytest.mark.parametrize(
    ("directory", "file", "told"),
    [
        (0o777, 0o666, None),
        (0o777, None, None),
        (0o755, None, "may not make {path}/edge.db in {path}, which is"),
        (0o755, 0o666, "may not make the files that SQLite has beside edge.db in {path}"),
        (0o777, 0o644, "may not read and write {path}/edge.db, which is"),
        (0o700, 0o666, "may not enter {path}, which is"),
        (0o776, 0o666, "may not enter {path}, which is"),
    ],
)
def test_what_another_user_may_not_is_told_with_the_path_its_owner_and_its_mode(
    open_path: Path, directory: int, file: int | None, told: str | None
) -> None:
    """As for a service whose file root has made."""
    path = open_path / "store"
    path.mkdir()
    if file is not None:
        (path / "edge.db").touch()
        (path / "edge.db").chmod(file)
    path.chmod(directory)
    why = obstacle(path / "edge.db", OTHER)
    if told is None:
        assert why is None
        return
    assert why is not None
    assert f"user {OTHER.uid} {told.format(path=path)}" in why
    assert f"({os.getuid()})'s with mode" in why
    assert "change its owner or mode, or set store.url to another place" in why


def test_the_group_counts_and_comes_before_everybody_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(stat.S_IRGRP | stat.S_IWGRP)
    assert User(OTHER.uid, {file.stat().st_gid}).may(file, 6)
    file.chmod(stat.S_IROTH | stat.S_IWOTH)
    assert not User(OTHER.uid, {file.stat().st_gid}).may(file, 6)


def test_the_user_of_a_process_is_known() -> None:
    user = user_of(os.getpid())
    assert user is not None
    assert (user.uid, set(user.gids)) == (this_user().uid, set(this_user().gids))
    assert user_of(2**22 + 1) is None
