"""Tickets: whose they are, for how long, and that nobody can make or change one."""

from base64 import urlsafe_b64encode
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import BadRequest, Unauthorized
from edge.policy.auth.principal import Principal
from edge.policy.auth.tickets import MOST_TTL_S, PREFIX, Ticket, issue, read, sign
from edge.policy.limits.allowance import Allowance

NOW = 1_800_000_000.0
SECRET = b"s" * 32
ALICE = Principal("alice", grant="key:0123456789ab", models=("m*",), admin=True)
BOB = Principal(
    "jwt:bob",
    grant="jwt",
    models=("m*", "q"),
    lanes=("batch",),
    limits=Allowance(concurrent=1),
    admin=True,
    until=NOW + 90,
)
STREAM = "st_" + "0" * 32


def test_a_ticket_comes_back_as_it_was_given_as_often_as_it_is_used() -> None:
    ticket = issue(ALICE, 60, STREAM, NOW)
    text = sign(SECRET, ticket)
    assert ticket == Ticket("alice", "key:0123456789ab", NOW + 60, STREAM)
    assert read(SECRET, text, NOW) == read(SECRET, text, NOW + 59) == ticket


def test_a_tokens_ticket_carries_what_the_token_granted_but_no_more_than_reading() -> None:
    principal = issue(BOB, 60, None, NOW).carried()
    assert principal == replace(BOB, admin=False, until=NOW + 60)


@pytest.mark.parametrize(("ttl_s", "until", "lives_s"), [(60, None, 60), (9999, None, MOST_TTL_S), (300, NOW + 90, 90)])
def test_a_ticket_ends_in_time_and_not_after_its_credential(ttl_s, until, lives_s) -> None:
    text = sign(SECRET, issue(replace(ALICE, until=until), ttl_s, None, NOW))
    assert read(SECRET, text, NOW + lives_s - 0.1)
    with pytest.raises(Unauthorized, match="expired") as caught:
        read(SECRET, text, NOW + lives_s)
    assert caught.value.code == "expired_ticket"


def test_it_fits_into_an_address() -> None:
    text = sign(SECRET, issue(BOB, 60, STREAM, NOW))
    assert text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    with pytest.raises(BadRequest, match="grants more"):
        sign(SECRET, issue(replace(BOB, models=("m" * 100,) * 40), 60, None, NOW))


def forged(ticket: Ticket, secret: bytes) -> str:
    return sign(secret, ticket)


def unsigned(ticket: Ticket) -> str:
    return PREFIX + urlsafe_b64encode(msgspec.json.encode(ticket)).rstrip(b"=").decode() + "."


GOOD = issue(ALICE, 60, None, NOW)
ATTACKS = {
    "another's secret": sign(b"t" * 32, GOOD),
    "no secret": sign(b"", GOOD),
    "no signature": unsigned(GOOD),
    "a stranger's signature": unsigned(GOOD) + sign(SECRET, issue(BOB, 60, None, NOW)).partition(".")[2],
    "the payload twice": sign(SECRET, GOOD).replace(".", "." + sign(SECRET, GOOD).partition(".")[0] + "."),
    "a longer life than any": sign(SECRET, replace(GOOD, expires=NOW + 10**9)),
    "nothing": "",
    "the prefix": PREFIX,
    "dots": f"{PREFIX}...",
    "no base64": f"{PREFIX}é.é",
    "a byte of base64": f"{PREFIX}A.A",
    "far too long": PREFIX + "A" * 100_000,
    "a key": "edge-0123456789ab-" + "0" * 48,
    "a token": "eyJhbGciOiJub25lIn0.e30.",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_nobody_can_make_one(text) -> None:
    with pytest.raises(Unauthorized) as caught:
        read(SECRET, text, NOW)
    assert caught.value.code == "invalid_ticket"
    assert not text or text not in caught.value.message


@given(st.data())
def test_nobody_can_change_one(data) -> None:
    text = sign(SECRET, GOOD)
    at = data.draw(st.integers(len(PREFIX), len(text) - 1))
    char = data.draw(st.sampled_from("abcXYZ019-_.=%"))
    changed = text[:at] + char + text[at + 1 :]
    if read_or_none(changed) is not None:
        assert read_or_none(changed) == GOOD, "only bits that base64 does not use may differ"


def read_or_none(text: str) -> Ticket | None:
    try:
        return read(SECRET, text, NOW)
    except Unauthorized:
        return None
