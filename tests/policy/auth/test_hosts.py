import pytest

from edge.errors import Forbidden
from edge.policy.auth.hosts import EXPOSED, Hosts, Origins

LOOPBACK = [
    "localhost",
    "LOCALHOST:11435",
    "localhost.",
    "edge.localhost:80",
    "127.0.0.1",
    "127.0.0.1:11435",
    "127.8.9.1:1",
    "[::1]",
    "[::1]:11435",
    "[0:0::1]:11435",
]
FOREIGN = [
    "evil.example",
    "evil.example:11435",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.evil.example",
    "127.1",
    "2130706433",
    "0.0.0.0",
    "192.168.1.5:11435",
    "[::2]",
    "[::]",
    "::1",
    "",
    "localhost:",
    "localhost:x",
    "localhost:80:80",
    "localhost/evil",
    "user@localhost",
    "local host",
    "localhost\r\nX: y",
    "[evil.example]",
    "лок",
    "\udcff",
]


def allows(hosts: Hosts, host: str | None, *, trusted: bool = False) -> bool:
    try:
        hosts.check(host, trusted=trusted)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_names_are_answered_on_any_port(host):
    assert allows(Hosts([], have_keys=False), host)
    assert allows(Hosts(["edge.lan"], have_keys=True), host)


@pytest.mark.parametrize("host", FOREIGN)
def test_a_rebound_name_is_refused_while_there_are_no_keys(host):
    assert not allows(Hosts([], have_keys=False), host)


@pytest.mark.parametrize("host", FOREIGN)
def test_with_keys_every_host_is_answered_until_a_list_is_given(host):
    assert allows(Hosts([], have_keys=True), host)
    assert not allows(Hosts(["edge.lan"], have_keys=True), host)


@pytest.mark.parametrize("host", FOREIGN)
def test_a_star_and_a_unix_socket_let_any_host_pass(host):
    assert allows(Hosts(["*"], have_keys=False), host)
    assert allows(Hosts([], have_keys=False), host, trusted=True)


def test_no_host_at_all_is_no_browser():
    assert allows(Hosts([], have_keys=False), None)


@pytest.mark.parametrize(
    ("entry", "host", "answered"),
    [
        ("ai.example", "ai.example", True),
        ("AI.example", "ai.EXAMPLE.:8443", True),
        ("ai.example", "x.ai.example", False),
        ("ai.example:8443", "ai.example:8443", True),
        ("ai.example:8443", "ai.example", False),
        ("ai.example:8443", "ai.example:1", False),
        ("192.168.1.5", "192.168.1.5:11435", True),
        ("[fd00::1]", "[fd00:0::1]:11435", True),
    ],
)
def test_listed_hosts_are_answered_with_their_port_or_on_any(entry, host, answered):
    assert allows(Hosts([entry], have_keys=False), host) is answered


@pytest.mark.parametrize("entry", ["https://ai.example", "ai.example/", "", "*.example", "bücher.example"])
def test_an_entry_that_could_never_match_is_refused_at_once(entry):
    with pytest.raises(ValueError, match=r"server\.allowed_hosts: .* is not HOST"):
        Hosts([entry], have_keys=False)


def test_the_refusal_names_the_setting_and_shows_the_host_harmlessly():
    with pytest.raises(Forbidden) as caught:
        Hosts([], have_keys=False).check("evil\x1b[31m\r\n\udcff" + "x" * 5000)
    assert "server.allowed_hosts" in caught.value.message
    assert '"evil?[31m???xxx' in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250


PAGE = "https://app.example"


def test_by_default_no_origin_may_call():
    origins = Origins([])
    assert not origins.allows(PAGE)
    assert origins.headers(PAGE) == {}
    assert origins.preflight(PAGE, "content-type") == {}


def test_a_listed_origin_is_echoed_and_the_answer_varies_by_it():
    origins = Origins(["https://APP.example/"])
    headers = origins.headers(PAGE)
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Vary"] == "Origin"
    assert headers["Access-Control-Expose-Headers"] == EXPOSED


@pytest.mark.parametrize(
    "origin", ["null", "http://app.example", "https://app.example:8443", "https://app.example.evil"]
)
def test_other_origins_get_nothing(origin):
    assert Origins([PAGE]).headers(origin) == {}


def test_a_star_allows_any_origin_without_reflecting_it():
    headers = Origins(["*"]).headers("https://any\r\nX: y")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in headers


@pytest.mark.parametrize("name", ["x-request-id", "x-stream-id", "retry-after-ms", "x-ratelimit-reset-tokens"])
def test_what_sdks_read_from_answers_is_exposed(name):
    assert name in EXPOSED.split(", ")


def test_a_preflight_grants_the_headers_that_an_sdk_asks_for():
    asked = "Authorization,content-type, x-stainless-lang,anthropic-version"
    headers = Origins([PAGE]).preflight(PAGE, asked)
    assert headers["Access-Control-Allow-Headers"] == "authorization, content-type, x-stainless-lang, anthropic-version"
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert int(headers["Access-Control-Max-Age"]) > 0


def test_a_preflight_grants_no_malformed_or_endless_list():
    asked = "x y, évil, a\r\nb, ," + ",".join(f"x-{number}" for number in range(1000))
    granted = Origins([PAGE]).preflight(PAGE, asked)["Access-Control-Allow-Headers"].split(", ")
    assert granted[0] == "x-0"
    assert len(granted) <= 64


@pytest.mark.parametrize("asked", [None, "", " , "])
def test_a_preflight_without_a_list_gets_the_usual_headers(asked):
    granted = Origins([PAGE]).preflight(PAGE, asked)["Access-Control-Allow-Headers"]
    assert {"authorization", "content-type", "x-api-key", "anthropic-version"} <= set(granted.split(", "))
