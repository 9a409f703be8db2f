"""The settings of listening: what a person who made a mistake is told."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.tls import make_certificate, with_passphrase

from edge.config import ConfigError, Problem, load
from edge.settings import Settings

Read = Callable[..., Settings]
CERTIFICATE = Path(__file__).parent / "support" / "certificate.pem"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The settings of a file with this in its section ``[server]``."""

    def read(text: str, more: str = "", **environ: str) -> Settings:
        file = tmp_path / "edge.toml"
        file.write_text(f"[server]\n{text}\n{more}")
        return load(file, environ).settings

    return read


def mistakes(read: Read, *given: str, **environ: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        read(*given, **environ)
    return caught.value.problems


TOLD = {
    "mode, a number": ("unix_mode = 660", "unix_mode", "must be a string"),
    "mode, not octal": ('unix_mode = "0680"', "unix_mode", 'must be three octal digits, such as "0660"'),
    "mode, as Python writes it": ('unix_mode = "0o660"', "unix_mode", "must be three octal digits"),
    "mode, empty": ('unix_mode = ""', "unix_mode", "must be three octal digits"),
    "mode, more than permissions": ('unix_mode = "4660"', "unix_mode", "must be three octal digits"),
    "group": ('unix_group = "nobody-has-this-group"', "unix_group", "no such group on this machine"),
    "certificate alone": (f'tls_cert = "{CERTIFICATE}"', "tls_cert", "needs server.tls_key as well"),
    "key alone": (f'tls_key = "{CERTIFICATE}"', "tls_key", "needs server.tls_cert as well"),
    "proxy, a name": ('trusted_proxies = ["unix", "proxy"]', "trusted_proxies", "item 2 must be an IP address, a"),
    "proxy, host bits": ('trusted_proxies = ["10.0.0.1/8"]', "trusted_proxies", "nothing after its prefix"),
    "proxy, a port": ('trusted_proxies = ["10.0.0.1:80"]', "trusted_proxies", "item 1 must be an IP address"),
    "proxy, everybody": ('trusted_proxies = ["*"]', "trusted_proxies", "item 1 must be an IP address"),
    "admin": ('admin_listen = ["9100"]', "admin_listen", "item 1: must be HOST:PORT"),
    "admin, systemd": ('admin_listen = ["systemd"]', "admin_listen", "cannot be systemd"),
    "admin, twice": ('admin_listen = ["[::1]:1", "[::1]:1"]', "admin_listen", "has the same address twice"),
    "admin, a clients' one": ('admin_listen = ["127.0.0.1:11435"]', "admin_listen", "that server.listen has too"),
    "admin, beyond loopback": ('admin_listen = ["0.0.0.0:9100"]', "admin_listen", "where it asks for no key, unless"),
}


@pytest.mark.parametrize(("text", "key", "hint"), TOLD.values(), ids=TOLD)
def test_a_mistake_is_one_line_with_the_key_the_place_and_what_to_do(
    read: Read, text: str, key: str, hint: str
) -> None:
    (problem,) = mistakes(read, text)
    assert (problem.key, problem.line) == (f"server.{key}", 2)
    assert hint in problem.message


def tls(certificate: str, key: str) -> str:
    return f'tls_cert = "{certificate}"\ntls_key = "{key}"'


def test_files_of_tls_that_cannot_be_used(read: Read, tmp_path: Path) -> None:
    one, other = make_certificate(tmp_path), make_certificate(tmp_path, "other")
    certificate, key = one["tls_cert"], one["tls_key"]
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for given, hint in {
        ("/nowhere", key): "the file of server.tls_cert cannot be read: No such file or directory",
        (certificate, str(tmp_path)): "the file of server.tls_key cannot be read: Is a directory",
        (certificate, other["tls_key"]): "the key of server.tls_key is not the one of the certificate",
        (certificate, certificate): "the file of server.tls_key holds no PEM private key",
        ("/dev/null", key): "the file of server.tls_cert holds no PEM certificate",
        (str(damaged), key): "OpenSSL does not take the certificate",
    }.items():
        (problem,) = mistakes(read, tls(*given))
        assert (problem.key, problem.line) == ("server.tls_cert", 2)
        assert hint in problem.message
    assert read(tls(certificate, key)).server.tls_key == key


def test_a_key_with_a_passphrase_is_refused_and_asked_for_nowhere(read: Read, tmp_path: Path) -> None:
    given = make_certificate(tmp_path)
    locked = with_passphrase(given["tls_key"])
    (problem,) = mistakes(read, tls(given["tls_cert"], locked))
    assert "has a passphrase" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        'unix_mode = "666"\nunix_group = "root"',
        'unix_group = "1234"',
        'trusted_proxies = ["unix", "127.0.0.1", "::1", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0"]',
        'admin_listen = ["127.0.0.1:9100", "[::1]:0", "unix:/run/edge/admin.sock"]',
    ],
)
def test_what_is_possible_is_accepted(read: Read, text: str) -> None:
    read(text)


def test_keys_do_not_open_the_operators_addresses_beyond_loopback(read: Read) -> None:
    """Nobody is asked for one there."""
    text = 'admin_listen = ["0.0.0.0:9100"]'
    (problem,) = mistakes(read, text, '[auth]\nkeys = ["long-enough"]')
    assert problem.key == "server.admin_listen"
    read(text, '[auth]\nkeys = ["long-enough"]\nallow_anonymous = true')


def test_an_upstream_cannot_be_the_operators_address(read: Read) -> None:
    text = 'admin_listen = ["127.0.0.1:9100"]'
    (problem,) = mistakes(read, text, '[[upstream]]\nname = "a"\nurl = "http://localhost:9100"')
    assert "Edge's own address" in problem.message


@pytest.mark.parametrize(
    "auth",
    [
        'keys = ["long-enough-key"]',
        "require_key = true",
        f'jwt_secret = "{"s" * 32}"',
        'jwt_jwks = "https://idp/k"\njwt_issuer = "i"\njwt_audience = ["a"]',
        'jwt_jwks = "http://127.0.0.1:1/k"\njwt_issuer = "i"\njwt_audience = ["a"]',
    ],
)
def test_whatever_asks_for_a_credential_allows_listening_beyond_loopback(tmp_path, auth):
    file = tmp_path / "edge.toml"
    file.write_text(f'[server]\nlisten = ["0.0.0.0:1"]\n[auth]\n{auth}\n')
    assert load(file, {}).settings.server.listen == ["0.0.0.0:1"]
