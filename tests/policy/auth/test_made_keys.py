"""Keys that were made: what they look like, whom they let in, and until when."""

import re
from dataclasses import replace

import pytest

from edge.errors import Unauthorized
from edge.policy.auth.keys import CreatedKeys, KeyRecord, is_name, make_key

NOW = 1_800_000_000.0
ALICE = KeyRecord("", "alice", "", 0.0, models=("llama*",), lanes=("batch",), limits="gold", admin=True)


def test_a_key_is_long_random_and_found_by_its_id() -> None:
    (one, first), (other, second) = make_key(ALICE, NOW), make_key(ALICE, NOW)
    assert re.fullmatch(r"edge-[0-9a-f]{12}-[0-9a-f]{48}", one), (
        "192 bits, and a form that scanners for secrets can find"
    )
    assert one != other
    assert first.id != second.id
    assert one.split("-")[1] == first.id
    assert (first.created, first.revoked, first.name, first.models) == (NOW, None, "alice", ("llama*",))
    assert one.split("-")[2] not in repr(first)


def test_a_key_gives_what_its_record_says() -> None:
    key, record = make_key(replace(ALICE, expires=NOW + 60), NOW)
    principal = CreatedKeys([record]).find(key, NOW)
    assert principal is not None
    assert (principal.name, principal.models, principal.lanes) == ("alice", ("llama*",), ("batch",))
    assert (principal.limits, principal.admin, principal.until) == ("gold", True, NOW + 60)


def test_of_many_keys_each_is_its_owners() -> None:
    made = [make_key(replace(ALICE, name=f"n{n}"), NOW) for n in range(50)]
    keys = CreatedKeys(record for _, record in made)
    found = [keys.find(key, NOW) for key, _ in made]
    assert [principal.name for principal in found if principal] == [f"n{n}" for n in range(50)]


ATTACKS = {
    "one character less": lambda key: key[:-1],
    "one character more": lambda key: f"{key}0",
    "another secret": lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
    "upper case": lambda key: key.upper(),
    "only the id": lambda key: key.rpartition("-")[0],
    "no secret": lambda key: f"{key.rpartition('-')[0]}-",
    "another id": lambda key: f"edge-000000000000-{key.rpartition('-')[2]}",
    "no id": lambda key: f"edge--{key.rpartition('-')[2]}",
    "the digest itself": lambda key: f"edge-{key.split('-')[1]}-" + make_key(ALICE, NOW)[1].digest,
    "without its prefix": lambda key: key.removeprefix("edge-"),
    "a line end": lambda key: f"{key}\n",
    "a lone surrogate": lambda key: f"{key}\udcff",
    "nothing": lambda _key: "edge-",
    "far too long": lambda key: key + "0" * 100_000,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_anything_but_the_whole_key_is_nobodys(attack) -> None:
    key, record = make_key(ALICE, NOW)
    assert CreatedKeys([record]).find(attack(key), NOW) is None


def test_an_expired_key_is_told_so_to_who_has_it_only() -> None:
    key, record = make_key(replace(ALICE, expires=NOW + 60), NOW)
    keys = CreatedKeys([record])
    assert keys.find(key, NOW + 59.9) is not None
    with pytest.raises(Unauthorized, match="expired") as caught:
        keys.find(key, NOW + 60)
    assert caught.value.code == "expired_api_key"
    assert keys.find(key[:-1], NOW + 60) is None


def test_a_revoked_key_is_told_so_even_if_it_has_expired_too() -> None:
    key, record = make_key(replace(ALICE, expires=NOW + 60), NOW)
    with pytest.raises(Unauthorized, match="revoked") as caught:
        CreatedKeys([replace(record, revoked=NOW + 1)]).find(key, NOW + 100)
    assert caught.value.code == "revoked_api_key"


def test_revoked_keys_still_mean_that_keys_are_needed() -> None:
    """Revoking the last one must not open the door."""
    _, record = make_key(ALICE, NOW)
    assert CreatedKeys([replace(record, revoked=NOW)])
    assert not CreatedKeys()


def test_a_grant_lasts_as_long_as_its_key() -> None:
    key, record = make_key(replace(ALICE, expires=NOW + 60), NOW)
    keys = CreatedKeys([record])
    principal = keys.find(key, NOW)
    assert principal is not None
    assert keys.of(principal.grant, NOW) == principal
    assert keys.of(principal.grant, NOW + 60) is None
    assert CreatedKeys([replace(record, revoked=NOW)]).of(principal.grant, NOW) is None
    assert keys.of("key:", NOW) is None
    assert keys.of("anonymous", NOW) is None


@pytest.mark.parametrize("name", ["a", "alice@example.com", "ci-2.build_1", "A" * 64])
def test_names_that_will_do(name) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "-a", "a:b", "jwt:bob", "anonymous", "Anonymous1", "key-12345678", "KEY-1", "a\n", "é", "A" * 65],
)
def test_names_that_could_be_taken_for_somebody_else_or_break_a_line(name) -> None:
    assert not is_name(name)
