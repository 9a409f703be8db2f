"""Paths under a home directory, and users that have none, as in a container that runs under any user id."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import environment

from edge.config import CommandLine, ConfigError, load

NOBODY_S_HOME = pwd.getpwnam("nobody").pw_dir


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that no file knows."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_tilde_is_the_home_directory_in_every_path(tmp_path: Path) -> None:
    """In lists, after a scheme, from the file, the environment and the command line."""
    certificate = Path(__file__).parent / "support" / "certificate.pem"
    (tmp_path / "c.pem").write_bytes(certificate.read_bytes())
    (tmp_path / "said").write_text("hello")
    file = tmp_path / "edge.toml"
    file.write_text(
        '[server]\nadmin_listen = ["unix:~/admin"]\n[store]\nurl = "sqlite:~/x.db"\n'
        '[[upstream]]\nname = "a"\nkind = "simulator"\nscript = "~/said"\n'
        '[[upstream]]\nname = "b"\nurl = "https://h"\nca_file = "~/c.pem"\n'
    )
    environ = {"HOME": str(tmp_path), "EDGE_AUTH_KEYS": "~key-that-begins-so"}
    settings = load(file, environ, CommandLine(("unix:~/edge.sock",))).settings
    assert settings.server.listen == [f"unix:{tmp_path}/edge.sock"]
    assert settings.server.admin_listen == [f"unix:{tmp_path}/admin"]
    assert settings.store.url == f"sqlite:{tmp_path}/x.db"
    assert settings.upstream[0].script == f"{tmp_path}/said"
    assert settings.upstream[1].ca_file == f"{tmp_path}/c.pem"
    assert settings.auth.keys == ["~key-that-begins-so"]  # which is no path


def test_a_tilde_and_a_name_is_that_user_s(tmp_path: Path) -> None:
    environ = {"EDGE_STORE_URL": "sqlite:~nobody/x.db", "HOME": str(tmp_path)}
    assert load(None, environ).settings.store.url == f"sqlite:{NOBODY_S_HOME}/x.db"


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("EDGE_STORE_URL", "sqlite:", "set store.url to sqlite:/PATH/edge.db, or to memory:, or set STATE_DIRECTORY"),
        ("EDGE_STORE_URL", "sqlite:~/x.db", "~ is no path here: this user has no home directory"),
        ("EDGE_STORE_URL", "sqlite:~no-such-user/x.db", "user 'no-such-user' has no home directory"),
        ("EDGE_SERVER_LISTEN", "unix:~/sock", "write the whole path"),
    ],
)
def test_where_there_is_no_home_one_line_says_what_to_set(
    homeless: None, variable: str, value: str, named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {"EDGE_STORE_URL": "memory:", variable: value})
    (problem,) = caught.value.problems
    assert problem.key == ("store.url" if variable == "EDGE_STORE_URL" else "server.listen")
    assert named in problem.message


@pytest.mark.parametrize("given", [{"STATE_DIRECTORY": "/s"}, {"XDG_STATE_HOME": "/s"}, {"HOME": "/"}])
def test_any_place_for_what_is_kept_will_do(homeless: None, given: dict[str, str]) -> None:
    assert load(None, given).settings.store.url == "sqlite:"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://h?db=main", "the database, ?db=, must be a number"),
        ("redis://h/1?db=2", "names two databases: give it after the last /, or as ?db=, not both"),
        ("redis://h?socket_timeout=2&db=1", "only db and ssl_… may follow the ?, not socket_timeout"),
    ],
)
def test_a_redis_url_with_strange_options_is_one_line(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {"EDGE_STORE_URL": url})
    assert [problem.message for problem in caught.value.problems] == [message]


@pytest.mark.parametrize(
    "url", ["redis://h?db=2", "redis://h/?db=2", "redis://h/2?db=2", "rediss://h?ssl_ca_certs=x&db=2"]
)
def test_a_redis_database_may_be_given_as_other_programs_spell_it(url: str) -> None:
    assert load(None, {"EDGE_STORE_URL": url}).settings.store.url == url


def test_an_option_that_the_redis_client_refuses_is_one_line_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge", "serve"],
        env=environment(EDGE_STORE_URL="rediss://:secret@127.0.0.1/0?ssl_strange=1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge: store.url: ")
    assert "secret" not in line


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="changes the user: root only")
def test_every_command_tells_a_user_without_a_home_what_to_set() -> None:
    for command in (["serve"], ["check"], ["store"], ["usage"], ["keys", "list"]):
        done = subprocess.run(  # noqa: S603 - our own code
            ["setpriv", "--reuid=1000770000", "--regid=0", "--clear-groups", sys.executable, "-m", "edge", *command],  # noqa: S607
            env={"PATH": os.environ["PATH"], "EDGE_DISCOVERY_ENABLED": "false", "EDGE_SERVER_LISTEN": "127.0.0.1:0"},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 2, (command, done.stderr)
        assert "store.url" in done.stderr
        assert "Traceback" not in done.stderr
