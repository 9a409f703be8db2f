"""Loading the configuration: what a person who made a mistake is told, and what wins over what."""

import sys
from pathlib import Path

import pytest

from edge.config import CommandLine, ConfigError, Problem, load, parse_listen
from edge.settings import Auth, Discovery, Limit, Server, Settings, Stream, Upstream

CANARY = "sk-canary-5e1f0c"
JWKS = '[auth]\njwt_jwks = "https://a/k"\njwt_issuer = "i"\njwt_audience = ["a"]\n'
UP = '[[upstream]]\nname = "a"\nurl = "http://127.0.0.1:8000"\n'
LIMIT = '[[limit]]\nname = "a"\n'
SIM = '[[upstream]]\nname = "a"\nkind = "simulator"\n'
TLS = '[[upstream]]\nname = "b"\nurl = "https://host"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edge.toml"


def loaded(file: Path, text: str = "", **environ: str) -> Settings:
    file.write_text(text)
    return load(file, environ).settings


def problems(file: Path, text: str = "", **environ: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text, **environ)
    assert [str(problem) for problem in caught.value.problems] == str(caught.value).split("\n")
    return caught.value.problems


MISTAKES = {
    # unknown names
    "section": ("[strem]", "strem", 1, "did you mean stream?"),
    "section, nothing near": ("\n[zzz]", "zzz", 2, "there are server, stream, auth"),
    "key": ("[stream]\nconnect_s = 5\nheartbeats_s = 1", "stream.heartbeats_s", 3, "did you mean heartbeat_s?"),
    "key, nothing near": ("[auth]\nzzz = 1", "auth.zzz", 2, "there are keys, allow_anonymous"),
    "key of another section": ("[stream]\nlisten = []", "stream.listen", 2, "did you mean server.listen?"),
    "key outside of a section": ("heartbeat_s = 1", "heartbeat_s", 1, "did you mean stream.heartbeat_s?"),
    "inline table": ("\nstream = { connect = 1 }", "stream.connect", 2, "did you mean connect_s?"),
    "dotted key": ("# hello\nstream.conect_s = 1", "stream.conect_s", 2, "did you mean connect_s?"),
    "quoted key": ('[stream]\n"conect_s" = 1', "stream.conect_s", 2, "did you mean connect_s?"),
    "second upstream": (f"{TLS}{UP}urls = 1", "upstream[1].urls", 7, "did you mean url?"),
    "inline upstream": ('upstream = [{ name = "a", url = "http://h", key = "" }]', "upstream[0].key", 1, "api_key"),
    # shapes
    "section as a value": ("stream = 5", "stream", 1, "must be written as [stream]"),
    "section twice bracketed": ("\n[[stream]]", "stream", 2, "must be written as [stream]"),
    "upstream once bracketed": ('[upstream]\nname = "a"', "upstream", 1, "must be written as [[upstream]]"),
    "name missing": ('\n[[upstream]]\nurl = "http://h"', "upstream[0].name", 2, "is required"),
    "url missing": ('[[upstream]]\nname = "a"', "upstream[0].url", 1, "is required"),
    # types and bounds
    "text for a number": ('[stream]\nconnect_s = "5"', "stream.connect_s", 2, "a number of seconds, above 0"),
    "boolean for a number": ("[stream]\nconnect_s = true", "stream.connect_s", 2, "must be a number"),
    "zero": ("[stream]\nconnect_s = 0", "stream.connect_s", 2, "above 0"),
    "negative": ("[stream]\ntotal_s = -1", "stream.total_s", 2, "at least 0"),
    "infinite": ("[stream]\ntotal_s = inf", "stream.total_s", 2, "must be a finite number"),
    "not a number": ("[stream]\ntotal_s = nan", "stream.total_s", 2, "must be a number"),
    "too small": ("[stream]\nbuffer_bytes = 10", "stream.buffer_bytes", 2, "a whole number of bytes, at least 1024"),
    "fraction": ("[stream]\nbuffer_bytes = 2048.5", "stream.buffer_bytes", 2, "must be a whole number"),
    "choice": ('[stream]\non_disconnect = "stop"', "stream.on_disconnect", 2, "must be one of: cancel, grace, drain"),
    "boolean": ("[auth]\nallow_anonymous = 1", "auth.allow_anonymous", 2, "must be true or false"),
    "list": ('[auth]\nkeys = "long-enough"', "auth.keys", 2, "must be a list"),
    "item": ("[discovery]\nports = [\n  1,\n  '2',\n]", "discovery.ports", 2, "item 2 must be a whole number"),
    "item of choices": (f'{UP}surfaces = ["chats"]', "upstream[0].surfaces", 4, "item 1 must be one of: chat,"),
    "table": (f"{UP}headers = []", "upstream[0].headers", 4, "must be a table of strings"),
    "pattern": (UP.replace('"a"', '"a b"'), "upstream[0].name", 2, "must be a string that matches"),
    "kind": (f'{UP}kind = "olama"', "upstream[0].kind", 4, "must be one of: openai-compatible"),
    # addresses
    "no address": ("[server]\nlisten = []", "server.listen", 2, "needs at least one address"),
    "unparsable address": ('[server]\nlisten = ["nope"]', "server.listen", 2, "item 1: must be HOST:PORT"),
    "address twice": ('[server]\nlisten = ["[::1]:80", "[::1]:80"]', "server.listen", 2, "the same address twice"),
    "beyond loopback": ('[server]\nlisten = ["0.0.0.0:0"]', "server.listen", 2, "without auth.keys, or auth"),
    "beyond loopback by name": ('[server]\nlisten = ["myhost:80"]', "server.listen", 2, "refuses to listen"),
    "host with a port": ('[server]\nallowed_hosts = ["a:1"]', "server.allowed_hosts", 2, "item 1 must be a host name"),
    "origin with a path": ('[server]\ncors_origins = ["http://a/"]', "server.cors_origins", 2, "item 1 must be SCHEME"),
    "port": ("[discovery]\nports = [0]", "discovery.ports", 2, "item 1 must be a port"),
    "slots": (f"{UP}max_concurrency = -1", "upstream[0].max_concurrency", 4, "must be at least 0, which is no limit"),
    "many slots": (f"{UP}max_concurrency = '4'", "upstream[0].max_concurrency", 4, "must be a whole number"),
    "places": ("[queue]\nbatch_length = -1", "queue.batch_length", 2, "must be a whole number, at least 0"),
    # combinations
    "ageing": ("[queue]\nbatch_wait_s = 60", "queue.batch_wait_s", 2, "batch_ageing_s must be less than batch_wait_s"),
    "body and budget": ("[server]\nbodies_budget_bytes = 1024", "server.bodies_budget_bytes", 2, "one body may not"),
    # keys
    "required and not": (
        "[auth]\nrequire_key = true\nallow_anonymous = true",
        "auth.require_key",
        2,
        "contradict each other",
    ),
    "required of nobody": (
        '[auth]\nrequire_key = true\n[store]\nurl = "memory:"',
        "auth.require_key",
        2,
        "lets nobody in",
    ),
    "failures": ("[auth]\nfailures_per_min = -1", "auth.failures_per_min", 2, "at least 0"),
    # tokens
    "claim without tokens": ('[auth]\njwt_models_claim = "m"', "auth.jwt_models_claim", 2, "is of no use without"),
    "issuer without tokens": ('[auth]\njwt_issuer = "m"', "auth.jwt_issuer", 2, "is of no use without"),
    "secret and set": (
        f'[auth]\njwt_secret = "{"s" * 32}"\njwt_jwks = "https://a/k"',
        "auth.jwt_secret",
        2,
        "exclude each other",
    ),
    "short secret": ('[auth]\njwt_secret = "short"', "auth.jwt_secret", 2, "shorter than 32 bytes"),
    "unknown algorithm": (
        '[auth]\njwt_algorithms = ["none"]',
        "auth.jwt_algorithms",
        2,
        "item 1 must be one of: HS256",
    ),
    "public keys as a secret": (
        f'[auth]\njwt_secret = "{"s" * 32}"\njwt_algorithms = ["RS256"]',
        "auth.jwt_algorithms",
        3,
        "needs a key set",
    ),
    "a secret that is public": (
        f'{JWKS}jwt_algorithms = ["RS256", "HS256"]',
        "auth.jwt_algorithms",
        5,
        "needs auth.jwt_secret",
    ),
    "set for anybody": (
        '[auth]\njwt_jwks = "https://a/k"\njwt_issuer = "i"',
        "auth.jwt_jwks",
        2,
        "meant for this server",
    ),
    "set of anybody": (
        '[auth]\njwt_jwks = "https://a/k"\njwt_audience = ["a"]',
        "auth.jwt_jwks",
        2,
        "whose tokens they are",
    ),
    "nobody's tokens": (f'{JWKS}jwt_principal_claim = ""', "auth.jwt_principal_claim", 5, "is needed"),
    "set in the clear": (JWKS.replace("https", "http"), "auth.jwt_jwks", 2, "must be https:// beyond this machine"),
    "set with a password": (JWKS.replace("//a", "//u:p@a"), "auth.jwt_jwks", 2, "must not have a user"),
    "set of another scheme": (JWKS.replace("https", "ftp"), "auth.jwt_jwks", 2, "must be an https:// URL"),
    "set nowhere": (JWKS.replace("https://a/k", "/no/such"), "auth.jwt_jwks", 2, "cannot be read: No such file"),
    "set at no host": (JWKS.replace("//a", "//"), "auth.jwt_jwks", 2, "must be https://HOST"),
    "empty key": ('[auth]\nkeys = [""]', "auth.keys", 2, "item 1 is empty"),
    "short key": ('[auth]\nkeys = ["long-enough", "short"]', "auth.keys", 2, "item 2 is shorter than 8 characters"),
    "key with a space": ('[auth]\nkeys = ["Bearer something"]', "auth.keys", 2, "no header can carry"),
    "key for upstream": (f'{UP}api_key = "a\\nb"', "upstream[0].api_key", 4, "no header can carry"),
    # limits
    "limit once bracketed": ('[limit]\nname = "a"', "limit", 1, "must be written as [[limit]] for each limit"),
    "limit without a name": ("[[limit]]\nconcurrent = 1", "limit[0].name", 1, "is required"),
    "limit twice": (LIMIT + LIMIT, "limit[1].name", 4, "limit[0] has the same name"),
    "limit, a word": (f'{LIMIT}concurrent = "all"', "limit[0].concurrent", 3, "a whole number, at least 0"),
    "limit, negative": (f"{LIMIT}tokens_per_day = -1", "limit[0].tokens_per_day", 3, "at least 0"),
    "limit, empty pattern": (f'{LIMIT}models = ["a", ""]', "limit[0].models", 3, "item 2 is empty"),
    "limit, no such surface": (f'{LIMIT}surfaces = ["chats*"]', "limit[0].surfaces", 3, "item 1 matches no surface"),
    # upstreams
    "name twice": (UP + UP, "upstream[1].name", 5, "upstream[0] has the same name"),
    "own address": ('[[upstream]]\nname = "a"\nurl = "http://localhost:11435"', "upstream[0].url", 3, "Edge's own"),
    "a route by a prefix": (f'{UP}relay = ["/v1/"]', "upstream[0].relay", 4, "must be one of: /v1/rerank, /rerank"),
    "a route of a cloud": (
        f'{TLS}kind = "openai"\napi_key = "sk-12345678"\nrelay = ["/v1/score"]',
        "upstream[0].relay",
        6,
        "no use with kind",
    ),
    "ca file, plain": (f'{UP}ca_file = "{__file__}"', "upstream[0].ca_file", 4, "only of use with an https:// url"),
    "ca file, none": (f'{TLS}ca_file = "/nowhere.pem"', "upstream[0].ca_file", 4, "cannot be read: No such file"),
    "ca file, a directory": (f'{TLS}ca_file = "/"', "upstream[0].ca_file", 4, "cannot be read: Is a directory"),
    "ca file, no pem": (f'{TLS}ca_file = "/dev/null"', "upstream[0].ca_file", 4, "no PEM certificate"),
    "simulator, url": (f'{UP}kind = "simulator"', "upstream[0].url", 3, "is of no use to a simulator"),
    "simulator, headers": (f'{SIM}headers = {{ a = "b" }}', "upstream[0].headers", 4, "is of no use to a simulator"),
    "simulator, surfaces": (
        f'{SIM}surfaces = ["chat", "messages"]',
        "upstream[0].surfaces",
        4,
        "chat, completions, emb",
    ),
    "simulator, pace": (f"{SIM}pace_s = -1", "upstream[0].pace_s", 4, "a number of seconds, at least 0"),
    "simulator, script": (f'{SIM}script = "/nowhere"', "upstream[0].script", 4, "cannot be read: No such file"),
    "simulator, no text": (f'{SIM}script = "{sys.executable}"', "upstream[0].script", 4, "is not UTF-8 text"),
    "host, bare ipv6": ('[server]\nallowed_hosts = ["::1"]', "server.allowed_hosts", 2, "item 1 must be a host name"),
    "host, brackets": ('[server]\nallowed_hosts = ["[a]"]', "server.allowed_hosts", 2, "item 1 must be a host name"),
    "header's name": (f'{UP}headers = {{ "a b" = "c" }}', "upstream[0].headers", 4, "the name of header 1"),
    "header's value": (f'{UP}headers = {{ a = "b\\r\\nc" }}', "upstream[0].headers", 4, "the value of header 1"),
    "header of the hop": (f'{UP}headers.Connection = "close"', "upstream[0].headers", 4, "Connection cannot be set"),
    "header in a subtable": (f'{UP}[upstream.headers]\nHost = "b"', "upstream[0].headers", 4, "Host cannot be set"),
    "header twice": (f'{UP}headers = {{ a = "1", A = "2" }}', "upstream[0].headers", 4, "more than once"),
    "two keys": (f'{UP}api_key = "k"\nheaders.Authorization = "x"', "upstream[0].headers", 5, "exclude each other"),
    # references
    "variable": ('[auth]\nkeys = ["${NOPE}"]', "auth.keys", 2, "${NOPE}: this variable is not set"),
    "malformed reference": ('[auth]\nkeys = ["${NO-PE}"]', "auth.keys", 2, "a variable's name and }"),
    "credential": ('[auth]\nkeys = ["credential:k"]', "auth.keys", 2, "CREDENTIALS_DIRECTORY is not set"),
    "credential's name": ('[auth]\nkeys = ["credential:../k"]', "auth.keys", 2, "a credential's name is made of"),
    "header's reference": (f'{UP}headers = {{ a = "${{NOPE}}" }}', "upstream[0].headers", 4, "${NOPE}"),
    # TOML
    "not TOML": ("[stream]\nconnect_s = ", "", 2, "not TOML"),
    "unfinished": ('[stream]\nlisten = ["a"', "", 2, "not TOML"),
    "key twice": ("[stream]\nconnect_s = 1\nconnect_s = 2", "", 3, "not TOML"),
}


@pytest.mark.parametrize(("text", "key", "line", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_the_key_the_place_and_what_to_do(file, text, key, line, hint):
    """Each kind of mistake alone gives exactly one problem."""
    (problem,) = problems(file, text)
    assert (key, line) == (problem.key, problem.line)
    assert hint in problem.message
    assert str(problem).startswith(f"{file}:{line}: {key}")


URLS = {
    "host:8000": "must be http://HOST:PORT",
    "ftp://host": "must be http://HOST:PORT",
    "http://": "must be http://HOST:PORT",
    "http://host:0": "must be http://HOST:PORT",
    "http://host:port": "must be http://HOST:PORT",
    "http://host:99999": "must be http://HOST:PORT",
    "http://[::1": "must be http://HOST:PORT",
    "http://a b": "must be http://HOST:PORT",
    "http://me:pw@host": "must not hold a user or password",
    "http://host?a=b": "must not have a query or a fragment",
    "http://host/#": "must not have a query or a fragment",
    "http://host:1/v1": "leave out /v1",
    "http://host/openai/v1/": "leave out /v1",
    "http://host/openai": "leave out the path",
}


@pytest.mark.parametrize(("url", "hint"), URLS.items())
def test_an_upstream_url_is_an_origin(file, url, hint):
    (problem,) = problems(file, f'[[upstream]]\nname = "a"\nurl = "{url}"\n')
    assert (problem.key, problem.line) == ("upstream[0].url", 3)
    assert problem.message.startswith(hint)


@pytest.mark.parametrize("url", ["http://h", "https://h.example:8443/", "http://[::1]:8000", "HTTP://gpu_box:80"])
def test_an_upstream_url_may_end_in_a_slash_and_be_any_host(file, url):
    assert url == loaded(file, f'[[upstream]]\nname = "a"\nurl = "{url}"\n').upstream[0].url


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(file):
    text = f'[stream]\nconnect_s = "x"\nfoo = 1\n[server]\nlisten = ["nope", "a:b"]\n[nothing]\n{UP}url2 = 1\n'
    found = problems(file, text, EDGE_STREAM_FLUSH_S="x", EDGE_LOG_LEVLE="info")
    told = "2 stream.connect_s, 3 stream.foo, 5 server.listen, 5 server.listen, 6 nothing, 10 upstream[0].url2"
    assert ", ".join(f"{problem.line} {problem.key}" for problem in found[:6]) == told
    assert [problem.where for problem in found[6:]] == ["EDGE_STREAM_FLUSH_S", "EDGE_LOG_LEVLE"]


def test_a_key_that_is_wrong_by_itself_is_not_told_twice(file):
    """Listening beyond loopback is fine with keys; that these keys are no list is the one mistake."""
    (problem,) = problems(file, '[server]\nlisten = ["0.0.0.0:80"]\n[auth]\nkeys = 5\n')
    assert problem.key == "auth.keys"


def test_a_file_that_cannot_be_read_is_one_line(file):
    file.write_bytes(b"\xff\xfe")
    none, folder = file.with_name("none"), file.parent
    why = {none: "cannot be read: No such file or directory", folder: "cannot be read: Is a directory"}
    for path, message in {**why, file: "is not UTF-8 text"}.items():
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert f"{path}: {message}" == str(caught.value)


def test_without_a_file_there_are_the_defaults():
    loaded = load(None, {"PATH": "/bin"})
    assert (Settings(), None, []) == (loaded.settings, loaded.path, loaded.warnings)


def test_a_byte_order_mark_and_crlf_do_no_harm(file):
    file.write_bytes(b"\xef\xbb\xbf[stream]\r\nconnect_s = 7\r\n")
    assert load(file, {}).settings.stream.connect_s == 7.0


def test_a_pem_file_is_accepted(file):
    pem = Path(__file__).parent / "support" / "certificate.pem"
    assert loaded(file, f'{TLS}ca_file = "{pem}"\n').upstream[0].ca_file == str(pem)


@pytest.mark.parametrize(
    "text",
    [
        '[server]\nlisten = ["0.0.0.0:80"]\n[auth]\nkeys = ["long-enough"]',
        '[server]\nlisten = ["0.0.0.0:80"]\n[auth]\nallow_anonymous = true',
        '[server]\nlisten = ["unix:/run/edge.sock", "systemd", "localhost:0", "[::1]:0", "127.9.9.9:1"]',
        '[server]\nallowed_hosts = ["*", "edge.example", "10.0.0.1", "[::1]"]\ncors_origins = ["*", "http://a:1"]',
        f'{UP}headers.Authorization = "Basic eA=="',
        "[stream]\ntotal_s = 300",
    ],
)
def test_what_is_possible_is_accepted(file, text):
    loaded(file, text)


class TestEnvironment:
    def test_it_wins_over_the_file(self, file):
        settings = loaded(file, "[stream]\nheartbeat_s = 3\n", EDGE_STREAM_HEARTBEAT_S="5")
        assert settings.stream.heartbeat_s == 5.0

    def test_it_can_set_every_kind_of_value(self):
        environ = {
            "EDGE_SERVER_LISTEN": "127.0.0.1:1, unix:/run/edge.sock",
            "EDGE_SERVER_MAX_BODY_BYTES": "4096",
            "EDGE_STREAM_TOTAL_S": "1e3",
            "EDGE_STREAM_ON_DISCONNECT": "drain",
            "EDGE_AUTH_ALLOW_ANONYMOUS": "true",
            "EDGE_DISCOVERY_ENABLED": "0",
            "EDGE_DISCOVERY_PORTS": "1,2",
        }
        assert load(None, environ).settings == Settings(
            server=Server(listen=["127.0.0.1:1", "unix:/run/edge.sock"], max_body_bytes=4096),
            stream=Stream(total_s=1000.0, on_disconnect="drain"),
            auth=Auth(allow_anonymous=True),
            discovery=Discovery(enabled=False, ports=[1, 2]),
        )

    @pytest.mark.parametrize(
        ("variable", "value", "key", "hint"),
        [
            ("EDGE_STREAM_HEARTBEAT_S", "soon", "stream.heartbeat_s", "must be a number of seconds"),
            ("EDGE_STREAM_HEARTBEAT_S", "", "stream.heartbeat_s", "set but empty"),
            ("EDGE_STREAM_TOTAL_S", "inf", "stream.total_s", "finite"),
            ("EDGE_AUTH_ALLOW_ANONYMOUS", "yes", "auth.allow_anonymous", "must be true or false"),
            ("EDGE_AUTH_KEYS", " ", "auth.keys", "set but empty"),
            ("EDGE_AUTH_KEYS", "long-enough,", "auth.keys", "item 2 is empty"),
            ("EDGE_DISCOVERY_PORTS", "1;2", "discovery.ports", "item 1 must be a whole number"),
            ("EDGE_SERVER_LISTEN", "0.0.0.0:80", "server.listen", "refuses to listen"),
            ("EDGE_STREAM_HEARTBEATS_S", "5", "stream.heartbeats_s", "did you mean EDGE_STREAM_HEARTBEAT_S?"),
            ("EDGE_UPSTREAM_API_KEY", "key", "upstream[0].url", "is required: EDGE_UPSTREAM_URL"),
        ],
    )
    def test_its_mistakes_name_the_variable(self, variable, value, key, hint):
        with pytest.raises(ConfigError) as caught:
            load(None, {variable: value})
        (problem,) = caught.value.problems
        assert (key, None) == (problem.key, problem.line)
        assert str(problem).startswith(f"{variable}: ")
        assert hint in problem.message

    def test_it_can_describe_an_upstream_alone(self):
        environ = {"EDGE_UPSTREAM_URL": "http://gpu:8000", "EDGE_UPSTREAM_HEADERS": '{"X-Team": "a, b"}'}
        (upstream,) = load(None, environ).settings.upstream
        assert Upstream(name="local", url="http://gpu:8000", headers={"X-Team": "a, b"}) == upstream

    def test_it_overrides_the_only_upstream_of_the_file(self, file):
        (upstream,) = loaded(file, UP, EDGE_UPSTREAM_API_KEY="key", EDGE_UPSTREAM_SURFACES="chat,messages").upstream
        assert Upstream(name="a", url="http://127.0.0.1:8000", api_key="key", surfaces=["chat", "messages"]) == upstream

    def test_it_cannot_override_one_of_several_upstreams(self, file):
        (problem,) = problems(file, UP + UP.replace('"a"', '"b"'), EDGE_UPSTREAM_URL="http://gpu")
        assert (problem.key, problem.where) == ("upstream.url", "EDGE_UPSTREAM_URL")
        assert "2 upstreams" in problem.message

    def test_it_can_describe_a_limit_alone(self):
        environ = {"EDGE_LIMIT_REQUESTS_PER_MIN": "60", "EDGE_LIMIT_SURFACES": "ollama_*, /v1/audio/*,session"}
        (limit,) = load(None, environ).settings.limit
        assert Limit(name="default", requests_per_min=60, surfaces=["ollama_*", "/v1/audio/*", "session"]) == limit

    def test_it_cannot_override_one_of_several_limits(self, file):
        (problem,) = problems(file, LIMIT + LIMIT.replace('"a"', '"b"'), EDGE_LIMIT_CONCURRENT="2")
        assert (problem.key, problem.where) == ("limit.concurrent", "EDGE_LIMIT_CONCURRENT")
        assert "2 limits" in problem.message

    def test_headers_that_are_no_json_object_are_refused(self, file):
        (problem,) = problems(file, UP, EDGE_UPSTREAM_HEADERS="X-Team=a")
        assert "a JSON object" in problem.message

    def test_names_of_other_programs_are_ignored_with_a_warning(self):
        loaded = load(None, {"EDGE_STREAMS_CONNECT_S": "1", "EDGE_BROWSER": "x", "OTHER": "y"})
        assert Settings() == loaded.settings
        assert loaded.warnings == [
            "EDGE_BROWSER is ignored: Edge has no such setting",
            "EDGE_STREAMS_CONNECT_S is ignored: Edge has no such setting; did you mean EDGE_STREAM_CONNECT_S?",
        ]

    def test_a_static_key_that_can_be_guessed_is_a_warning(self, file):
        file.write_text('[auth]\nkeys = ["fifteen-letters", "sixteen--letters"]')
        (warning,) = load(file, {}).warnings
        assert warning.startswith("auth.keys: item 1 is shorter than 16 characters")
        assert "fifteen" not in warning

    def test_a_variable_that_the_file_refers_to_is_no_mistake(self, file):
        file.write_text(f'{UP}api_key = "${{EDGE_UPSTREAM_TOKEN}}"\n')
        loaded = load(file, {"EDGE_UPSTREAM_TOKEN": "t"})
        assert (loaded.settings.upstream[0].api_key, loaded.warnings) == ("t", [])


class TestCommandLine:
    def test_its_addresses_replace_all_others(self, file):
        file.write_text('[server]\nlisten = ["0.0.0.0:80"]\n')
        loaded = load(file, {"EDGE_SERVER_LISTEN": "0.0.0.0:81"}, CommandLine(("127.0.0.1:0",)))
        assert loaded.settings.server.listen == ["127.0.0.1:0"]

    @pytest.mark.parametrize("address", ["0.0.0.0:80", "nope"])
    def test_its_addresses_are_checked_alike(self, address):
        with pytest.raises(ConfigError, match=r"^--listen: server\.listen: "):
            load(None, {}, CommandLine((address,)))

    def test_its_simulator_replaces_all_upstreams(self, file):
        """What those need, such as a key, need not be there."""
        file.write_text(f'[stream]\nheartbeat_s = 3\n{UP}api_key = "${{NOPE}}"\n{TLS}')
        settings = load(file, {"EDGE_SERVER_LISTEN": "127.0.0.1:81"}, CommandLine(simulator={"pace_s": 0.5})).settings
        assert settings.upstream == [Upstream(name="simulator", kind="simulator", pace_s=0.5)]
        assert (settings.stream.heartbeat_s, settings.server.listen) == (3, ["127.0.0.1:81"])
        alone = load(None, {"EDGE_UPSTREAM_URL": "http://h"}, CommandLine(simulator={})).settings
        assert alone.upstream == [Upstream(name="simulator", kind="simulator")]

    def test_its_simulator_is_checked_alike(self):
        with pytest.raises(ConfigError, match=r"^--simulate: upstream\[0\]\.script: cannot be read: No such file"):
            load(None, {}, CommandLine(simulator={"script": "/nowhere"}))


class TestSecrets:
    def test_variables_are_replaced_in_every_string(self, file):
        text = f'[auth]\nkeys = ["${{A}}", "x-${{A}}-${{B}}"]\n{UP}headers.X-Key = "${{B}}"\n'
        settings = loaded(file, text, A="long-enough", B="bee")
        assert settings.auth.keys == ["long-enough", "x-long-enough-bee"]
        assert settings.upstream[0].headers == {"X-Key": "bee"}

    def test_what_a_variable_holds_is_not_replaced_again(self, file):
        assert loaded(file, '[auth]\nkeys = ["${A}"]', A="${A}-credential:x").auth.keys == ["${A}-credential:x"]

    @pytest.mark.parametrize(("content", "key"), [("secret-1", "secret-1"), ("secret-2\n", "secret-2")])
    def test_credentials_are_read_without_their_line_end(self, file, content, key):
        (file.parent / "edge-key").write_text(content)
        environ = {"CREDENTIALS_DIRECTORY": str(file.parent), "EDGE_UPSTREAM_API_KEY": "credential:edge-key"}
        settings = loaded(file, f'[auth]\nkeys = ["credential:edge-key"]\n{UP}', **environ)
        assert ([key], key) == (settings.auth.keys, settings.upstream[0].api_key)

    @pytest.mark.parametrize(
        ("name", "hint"), [("none", "No such file"), ("..", "Is a directory"), ("bin", "not UTF-8")]
    )
    def test_credentials_that_cannot_be_read_are_named(self, file, name, hint):
        (file.parent / "bin").write_bytes(b"\xff")
        (problem,) = problems(file, f'[auth]\nkeys = ["credential:{name}"]', CREDENTIALS_DIRECTORY=str(file.parent))
        assert (problem.key, problem.line) == ("auth.keys", 2)
        assert hint in problem.message

    @pytest.mark.parametrize(
        "text",
        [
            '[auth]\nkeys = ["VALUE "]',
            '[auth]\nkeys = "VALUE"',
            '[auth]\nallow_anonymous = "VALUE"',
            "[auth]\nkeys = VALUE",
            '[auth]\nkeys = ["credential:VALUE/"]',
            '[auth]\nkeys = ["${VALUE"]',
            '[server]\nlisten = ["VALUE"]\nallowed_hosts = ["/VALUE"]\ncors_origins = ["VALUE"]\nbody_s = "VALUE"',
            '[log]\nlevel = "VALUE"\n[discovery]\nports = ["VALUE"]',
            '[[upstream]]\nname = "/VALUE"\nurl = "VALUE"\nkind = "VALUE"\nsurfaces = ["VALUE"]\nca_file = "VALUE"',
            '[[upstream]]\nname = "a"\nurl = "http://me:VALUE@h/v1"\napi_key = "VALUE\\n"\nheaders.a = "VALUE\\n"',
            '[[upstream]]\nname = "VALUE"\nurl = "http://h"\n[[upstream]]\nname = "VALUE"\nurl = "http://h?VALUE"',
        ],
    )
    @pytest.mark.parametrize("through", ["file", "variable"])
    def test_no_message_holds_a_value(self, file, text, through):
        """A canary in every kind of wrong place, written there or by reference, is never shown."""
        reference = CANARY if through == "file" or "= VALUE" in text or "{VALUE" in text else "${SECRET}"
        found = problems(file, text.replace("VALUE", reference), SECRET=CANARY)
        assert CANARY not in "".join(map(repr, found))

    @pytest.mark.parametrize(
        "variable", ["EDGE_AUTH_KEYS", "EDGE_SERVER_LISTEN", "EDGE_LOG_LEVEL", "EDGE_UPSTREAM_URL"]
    )
    def test_no_message_holds_a_variable(self, variable):
        with pytest.raises(ConfigError) as caught:
            load(None, {variable: f"{CANARY} \t", "EDGE_AUTH_KEY": CANARY, "EDGE_OTHER": CANARY})
        assert CANARY not in repr(caught.value.problems)

    def test_what_was_loaded_does_not_show_secrets_in_its_repr(self):
        shown = repr(load(None, {"EDGE_AUTH_KEYS": CANARY, "EDGE_OTHER": CANARY}))
        assert CANARY not in shown
        assert "EDGE_OTHER" in shown


class TestListen:
    @pytest.mark.parametrize(
        ("text", "kind", "loopback"),
        [
            ("127.0.0.1:11435", "tcp", True),
            ("127.8.8.8:0", "tcp", True),
            ("localhost:80", "tcp", True),
            ("[::1]:80", "tcp", True),
            ("[::ffff:127.0.0.1]:80", "tcp", True),
            ("0.0.0.0:80", "tcp", False),
            ("[::]:80", "tcp", False),
            ("localhost.example:80", "tcp", False),
            ("unix:/run/edge.sock", "unix", True),
            ("systemd", "systemd", False),
        ],
    )
    def test_an_address_is_read_and_written_back(self, text, kind, loopback):
        listen = parse_listen(text)
        assert (kind, loopback, text) == (listen.kind, listen.loopback, str(listen))

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("", "must be HOST:PORT"),
            ("8080", "must be HOST:PORT"),
            ("host:", "must be HOST:PORT"),
            ("host:٣", "must be HOST:PORT"),
            (":80", "the host is missing"),
            ("host:65536", "the port must be at most 65535"),
            ("ho st:80", "the host is neither"),
            ("256.0.0.1:80", "the host is neither"),
            ("::1:80", "an IPv6 address needs brackets"),
            ("[localhost]:80", "not an IPv6 address"),
            ("http://127.0.0.1:80", "without http://"),
            ("unix:", "the path is missing"),
        ],
    )
    def test_what_is_no_address_is_refused_with_what_is_expected(self, text, hint):
        with pytest.raises(ValueError, match=hint):
            parse_listen(text)
