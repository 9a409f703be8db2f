"""Every setting, once: its name, type, bound, default, unit and one line of help.

In: nothing. Out: frozen structs that the rest of Edge is given, and from which the loader, ``config/edge.toml``, the
environment names and the README's table are derived. Must not: read files or the environment (``edge.config`` does).

A unit is part of the name where there is one: ``_s`` seconds, ``_bytes`` bytes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edge import bounds

Seconds = Annotated[float, Meta(ge=0, extra={"unit": "s"})]
PositiveSeconds = Annotated[float, Meta(gt=0, extra={"unit": "s"})]
Bytes = Annotated[int, Meta(ge=1024, extra={"unit": "bytes"})]

SURFACE_NAMES = Literal[
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "count_tokens",
    "ollama_chat",
    "ollama_generate",
    "ollama_embed",
    "ollama_embeddings",
]
# Whose answers can be streams; ids for EventSource and the like go on those that are server-sent events.
RESUMABLE_NAMES = Literal[
    "chat",
    "completions",
    "responses",
    "messages",
    "ollama_chat",
    "ollama_generate",
]
RELAY_PATHS = Literal[
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/v1/score",
    "/pooling",
    "/classify",
    "/infill",
    "/tokenize",
    "/detokenize",
    "/v1/responses/input_tokens",
    "/v1/chat/completions/control",
    "/v1/decisions",
    "/v1/systemone",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
]

# Where the clouds are, unless an upstream says otherwise.
CLOUD_URLS = {"openai": "https://api.openai.com", "anthropic": "https://api.anthropic.com"}
# Kinds that are in Edge itself, hence nowhere else.
URLLESS = frozenset({"simulator"})

JWT_ALGORITHM_NAMES = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]

REPAIR_NAMES = Literal[
    "drop-null-events",
    "role-first",
    "message-start",
    "stable-id",
    "finish-null",
    "tool-index",
    "both-reasoning",
    "split-long",
]


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Listening, and the bounds on what a client may send."""

    listen: Annotated[list[str], Meta(description="addresses: HOST:PORT, [IPV6]:PORT, unix:PATH or systemd")] = (
        msgspec.field(default_factory=lambda: ["127.0.0.1:11435"])
    )
    unix_mode: Annotated[str, Meta(description="permissions of Unix sockets, an octal number in quotes")] = "0660"
    unix_group: Annotated[
        str, Meta(description="group of Unix sockets, a name or a number; empty = the one that Edge runs as")
    ] = ""
    tls_cert: Annotated[
        str, Meta(description="PEM file, certificate first, then its chain; with it every TCP address speaks TLS")
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file with the certificate's key, without a passphrase")] = ""
    trusted_proxies: Annotated[
        list[str],
        Meta(description="addresses or networks whose X-Forwarded-For or Forwarded is believed; unix = Unix sockets"),
    ] = msgspec.field(default_factory=list)
    admin_listen: Annotated[
        list[str],
        Meta(description="addresses for /metrics, /health and /ready without a key; /metrics is then only there"),
    ] = msgspec.field(default_factory=list)
    allowed_hosts: Annotated[
        list[str],
        Meta(description='Host names to answer besides loopback ones while there are no keys; "*" answers any'),
    ] = msgspec.field(default_factory=list)
    cors_origins: Annotated[list[str], Meta(description='browser origins that may call; "*" allows any')] = (
        msgspec.field(default_factory=list)
    )
    max_connections: Annotated[
        int, Meta(ge=0, description="client connections at once; 0 = from the open-file limit, at most 4096")
    ] = 0
    max_header_bytes: Annotated[
        int,
        Meta(ge=1024, le=2**20, extra={"unit": "bytes"}, description="longest request line or header line (cookies)"),
    ] = 16 * 1024
    max_body_bytes: Annotated[Bytes, Meta(description="largest request body (images are sent inline)")] = 32 * 2**20
    bodies_budget_bytes: Annotated[Bytes, Meta(description="all request bodies in flight together")] = 256 * 2**20
    max_upload_bytes: Annotated[
        Bytes, Meta(description="largest audio upload; it is passed on as it comes, and not held")
    ] = 256 * 2**20
    body_s: Annotated[
        PositiveSeconds, Meta(description="time for a request body to arrive, or for an upload's next bytes")
    ] = 60.0
    keepalive_s: Annotated[
        PositiveSeconds,
        Meta(description="time for an idle connection (clients keep theirs 90 s), and for request headers"),
    ] = 100.0
    drain_s: Annotated[Seconds, Meta(description="how long running streams may finish after SIGTERM")] = 30.0


class Stream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clocks and buffers of a stream."""

    connect_s: Annotated[PositiveSeconds, Meta(description="connecting to the upstream")] = 5.0
    first_token_s: Annotated[
        PositiveSeconds, Meta(description="from connected to the first content, and from any content to the next")
    ] = 900.0
    inter_token_s: Annotated[PositiveSeconds, Meta(description="a silence of the upstream after the first content")] = (
        60.0
    )
    whole_s: Annotated[
        Seconds,
        Meta(description="instead of those two, an answer that the server sends in one piece; 0 = no limit"),
    ] = 0.0
    total_s: Annotated[Seconds, Meta(description="a whole exchange; 0 = no limit")] = 0.0
    heartbeat_s: Annotated[PositiveSeconds, Meta(description="a silence towards the client before a heartbeat")] = 20.0
    commit_after_s: Annotated[
        float,
        Meta(gt=0, le=240, extra={"unit": "s"}, description="how long the HTTP status waits for the first token"),
    ] = 10.0
    client_stall_s: Annotated[PositiveSeconds, Meta(description="a reader that takes no byte for this long is cut")] = (
        60.0
    )
    client_lag_s: Annotated[
        PositiveSeconds,
        Meta(description="a reader for which the upstream is paused this long is cut, if others wait for its slot"),
    ] = 300.0
    flush_s: Annotated[PositiveSeconds, Meta(description="time for the last bytes before a failed stream is cut")] = 2.0
    after_error: Annotated[
        Literal["auto", "reset", "close"],
        Meta(
            description="a stream of chat, completions or Ollama's surface after its error event: reset cuts the "
            "connection, close ends it cleanly, auto chooses by what is known of the client"
        ),
    ] = "auto"
    buffer_bytes: Annotated[
        Bytes, Meta(description="how far a reader may lag before the upstream is no longer read")
    ] = 256 * 1024
    max_event_bytes: Annotated[Bytes, Meta(description="largest single event of a stream: a picture")] = (
        bounds.EVENT_BYTES
    )
    max_answer_bytes: Annotated[Bytes, Meta(description="largest answer in one body: collected, or embeddings")] = (
        bounds.ANSWER_BYTES
    )
    on_disconnect: Annotated[
        Literal["cancel", "grace", "drain"],
        Meta(
            description="when the reader leaves: cancel stops the model, grace waits for one to come back, "
            "drain lets the model finish"
        ),
    ] = "cancel"
    grace_s: Annotated[
        PositiveSeconds, Meta(description="how long a stream that can be resumed goes on without any reader")
    ] = 60.0
    resume: Annotated[
        list[RESUMABLE_NAMES],
        Meta(description="surfaces whose streams can be resumed without being asked to; sessions always can"),
    ] = msgspec.field(default_factory=list)
    journal_bytes: Annotated[
        Bytes, Meta(description="what is kept of a stream that can be resumed; the oldest events go first")
    ] = 2**20


class Auth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call."""

    keys: Annotated[
        list[str], Meta(description="static API keys; use ${VAR} or credential:NAME, not the key itself")
    ] = msgspec.field(default_factory=list)
    allow_anonymous: Annotated[
        bool, Meta(description="allow callers without a key beyond loopback, and while the key store cannot be read")
    ] = False
    require_key: Annotated[
        bool, Meta(description="let nobody in without a key, even while none has been made with edge keys create")
    ] = False
    failures_per_min: Annotated[
        int,
        Meta(ge=0, description="wrong credentials from one address in a minute before it must wait; 0 = any number"),
    ] = 20
    jwt_secret: Annotated[
        str, Meta(description="what HS256 tokens (JWT) are signed with; use ${VAR} or credential:NAME")
    ] = ""
    jwt_jwks: Annotated[
        str, Meta(description="https URL or file of the JSON Web Key Set whose keys sign tokens; instead of jwt_secret")
    ] = ""
    jwt_algorithms: Annotated[
        list[JWT_ALGORITHM_NAMES],
        Meta(
            description="how tokens may be signed; empty = HS256 with a secret, RS256, ES256 and EdDSA with a key set"
        ),
    ] = msgspec.field(default_factory=list)
    jwt_issuer: Annotated[str, Meta(description="iss that tokens must have; a key set needs it")] = ""
    jwt_audience: Annotated[list[str], Meta(description="aud of which tokens must have one; a key set needs it")] = (
        msgspec.field(default_factory=list)
    )
    jwt_leeway_s: Annotated[Seconds, Meta(description="how far clocks may differ in exp and nbf")] = 30.0
    jwt_principal_claim: Annotated[
        str, Meta(description="claim that names the caller; in all of these, a.b is b within a")
    ] = "sub"
    jwt_models_claim: Annotated[
        str, Meta(description="claim with globs of allowed models, a list or a text with spaces; empty = all models")
    ] = ""
    jwt_lanes_claim: Annotated[
        str, Meta(description="claim with allowed lanes, the default one first; empty = all lanes")
    ] = ""
    jwt_limits_claim: Annotated[
        str,
        Meta(description="claim with the name of a class of limits, or an object of limits; empty = the usual ones"),
    ] = ""
    jwt_admin_claim: Annotated[
        str, Meta(description="claim that makes an admin if it is true or has the word edge-admin; empty = nobody")
    ] = ""


class Queue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Waiting for a slot of an upstream, where those are limited: two lanes, each fair among the callers."""

    interactive_length: Annotated[
        int, Meta(ge=0, description="requests that may wait for an upstream; 0 = none, they are refused at once")
    ] = 100
    interactive_wait_s: Annotated[
        PositiveSeconds, Meta(description="how long one may wait for that, before it is refused")
    ] = 300.0
    batch_length: Annotated[
        int, Meta(ge=0, description="requests of the batch lane, which goes after interactive, that may wait")
    ] = 1000
    batch_wait_s: Annotated[PositiveSeconds, Meta(description="how long one of those may wait")] = 3600.0
    batch_ageing_s: Annotated[
        Seconds,
        Meta(description="once one of those has waited for so long, every fourth slot that becomes free is batch's"),
    ] = 60.0
    drain_s: Annotated[
        Seconds,
        Meta(description="how long the slot of a request that was cut off stays taken, unless the server proves idle"),
    ] = 30.0


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "json", "logfmt", "console"],
        Meta(
            description="console = short lines for people, logfmt = key=value; auto = console on a terminal, else json"
        ),
    ] = "auto"
    progress_s: Annotated[Seconds, Meta(description="a progress line for long streams this often; 0 = none")] = 30.0
    content_bytes: Annotated[
        int,
        Meta(ge=0, extra={"unit": "bytes"}, description="log this much of each request and answer; 0 = nothing, ever"),
    ] = 0


class Discovery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Finding model servers on this host when no upstream is configured, and watching those that are known."""

    enabled: Annotated[
        bool, Meta(description="look for model servers on the ports below when no upstream is configured")
    ] = True
    ports: Annotated[list[int], Meta(description="loopback ports to look at")] = msgspec.field(
        default_factory=lambda: [11434, 8000, 8080, 1234]
    )
    interval_s: Annotated[PositiveSeconds, Meta(description="between two looks at ports and at each upstream")] = 5.0


class Sessions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The session API: conversations that Edge remembers for its clients."""

    model: Annotated[str, Meta(description="for a request that names none; empty = the only one there is")] = ""
    max_turns: Annotated[int, Meta(ge=2, description="turns of a session that are kept; the oldest go in pairs")] = 100
    max_bytes: Annotated[Bytes, Meta(description="text of a session that is kept; a message may be half of it")] = (
        128 * 1024
    )
    max_age_s: Annotated[PositiveSeconds, Meta(description="how long a turn is kept")] = 2592000.0
    max_sessions: Annotated[int, Meta(ge=1, description="sessions kept; the one unused for longest goes first")] = 5000
    busy: Annotated[
        Literal["wait", "conflict"],
        Meta(description="a second request at once on one session: it waits, or is answered 409"),
    ] = "wait"


class Store(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where streams that can be resumed, and sessions, are kept."""

    url: Annotated[
        str,
        Meta(
            description="memory: | sqlite: | sqlite:PATH | redis://HOST:PORT/DB | rediss://…; "
            "sqlite: is edge.db in the state directory"
        ),
    ] = "sqlite:"
    keep_s: Annotated[PositiveSeconds, Meta(description="how long a stream is kept after its end")] = 3600.0
    memory_bytes: Annotated[
        Bytes,
        Meta(description="what is kept in this process's memory, of streams and of sessions; the oldest goes first"),
    ] = 64 * 2**20
    principal_bytes: Annotated[Bytes, Meta(description="streams of one principal that are kept in memory")] = 16 * 2**20
    disk_bytes: Annotated[Bytes, Meta(description="streams that are kept in the file; the oldest go first")] = 2**30


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model server."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z", description="its name in logs and metrics")]
    kind: Annotated[
        Literal["openai-compatible", "ollama", "openai", "anthropic", "simulator"],
        Meta(description="what it is; model servers are recognised by what they answer"),
    ] = "openai-compatible"
    url: Annotated[
        str, Meta(description="http://HOST:PORT or https://…, without /v1; clouds have a default, a simulator none")
    ] = ""
    api_key: Annotated[
        str, Meta(description="sent to the server, the clouds need one; use ${VAR} or credential:NAME")
    ] = ""
    credential: Annotated[
        Literal["auto", "bearer", "x-api-key"],
        Meta(description="header that api_key is sent in; auto = x-api-key for kind anthropic, else bearer"),
    ] = "auto"
    ca_file: Annotated[str, Meta(description="PEM file to trust instead of the system's certificates")] = ""
    headers: Annotated[
        dict[str, str], Meta(description="extra request headers; they replace a client's own of the same name")
    ] = msgspec.field(default_factory=dict)
    surfaces: Annotated[
        list[SURFACE_NAMES], Meta(description="what it speaks; empty = the default of the detected server")
    ] = msgspec.field(default_factory=list)
    relay: Annotated[
        list[RELAY_PATHS], Meta(description="further routes that it has, passed on as they are, on exactly these paths")
    ] = msgspec.field(default_factory=list)
    max_concurrency: Annotated[
        int | None,
        Meta(
            description="requests it is given at once (Ollama: for each model), others wait; 0 = no limit; "
            "unset = as the server reports, 1 for Ollama",
        ),
    ] = None
    num_ctx: Annotated[int, Meta(ge=0, description="Ollama: the context length to ask for; 0 = the server's own")] = 0
    keep_alive: Annotated[
        str,
        Meta(description="Ollama: how long it keeps a model: 10m, seconds, -1 = for ever; empty = the server's own"),
    ] = ""
    on_truncation: Annotated[
        Literal["auto", "warn", "refuse"],
        Meta(
            description="Ollama: a prompt over its context is a 400 (refuse), or is cut, and log and metrics show it "
            "(warn); auto = refuse for requests with tools, warn for others"
        ),
    ] = "auto"
    allow_management: Annotated[
        bool | None,
        Meta(
            description="Ollama: pass on what changes its models (pull, push, create, copy, delete, blobs) for admins; "
            "unset = only an Ollama on loopback, while Edge has no keys and listens on loopback alone"
        ),
    ] = None
    pace_s: Annotated[Seconds, Meta(description="simulator: from one word to the next; 0 = as fast as it can")] = 0.05
    script: Annotated[str, Meta(description="simulator: a file with what its model script says")] = ""
    repairs: Annotated[
        list[REPAIR_NAMES] | None,
        Meta(description="faults of the server to mend; unset = the default of the detected server"),
    ] = None


READS = "reads"  # among the surfaces of limits: requests that read, or end, streams and sessions


class Limit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some requests may take. Of those that match a request the first one holds; 0 = no limit."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z", description="its name in usage and messages")]
    principals: Annotated[list[str], Meta(description="whose requests: names with * and ?; empty = everybody's")] = (
        msgspec.field(default_factory=list)
    )
    models: Annotated[list[str], Meta(description="for which models: names with * and ?; empty = any")] = msgspec.field(
        default_factory=list
    )
    surfaces: Annotated[
        list[str], Meta(description="on which surfaces: names, reads or relayed routes with * and ?; empty = any")
    ] = msgspec.field(default_factory=list)
    shared: Annotated[bool, Meta(description="one count for all principals, instead of one for each")] = False
    requests_per_min: Annotated[
        int, Meta(ge=0, description="requests in any 60 seconds; those that read are counted apart")
    ] = 0
    tokens_per_min: Annotated[int, Meta(ge=0, description="tokens of prompts and answers in any 60 seconds")] = 0
    concurrent: Annotated[int, Meta(ge=0, description="requests at once")] = 0
    tokens_per_day: Annotated[int, Meta(ge=0, description="tokens of prompts and answers in a day, by UTC")] = 0
    tokens_per_month: Annotated[int, Meta(ge=0, description="likewise in a calendar month")] = 0
    max_tokens: Annotated[
        int, Meta(ge=0, description="tokens of one answer: more is refused, and asked for where a request names none")
    ] = 0
    weight: Annotated[
        float, Meta(ge=0, description="share of a busy upstream, in proportion to those of others; 0 = the usual one")
    ] = 0.0


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: Server = Server()
    stream: Stream = Stream()
    auth: Auth = Auth()
    queue: Queue = Queue()
    log: Log = Log()
    discovery: Discovery = Discovery()
    sessions: Sessions = Sessions()
    store: Store = Store()
    upstream: list[Upstream] = msgspec.field(default_factory=list)
    limit: list[Limit] = msgspec.field(default_factory=list)
