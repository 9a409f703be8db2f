import pytest
from multidict import CIMultiDict

from edge.policy.auth.principal import ANONYMOUS, MAX_KEY_CHARS, Keys, Principal, offered, unknown


def find(keys: list[str], *headers: tuple[str, str]) -> Principal | None:
    known = Keys(keys)
    return next((found for key in offered(CIMultiDict(headers)) if (found := known.find(key))), None)


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer secret-1"),
        ("authorization", "bearer   secret-1 "),
        ("AUTHORIZATION", "BEARER secret-1"),
        ("x-api-key", "secret-1"),
        ("X-Api-Key", " secret-1 "),
        ("api-key", "secret-1"),
        ("Api-Key", "secret-1"),
    ],
)
def test_a_key_is_known_in_each_header(header):
    principal = find(["other", "secret-1"], header)
    assert principal is not None
    assert not principal.anonymous
    assert principal.admin
    assert principal.name.startswith("key-")
    assert len(principal.name) == len("key-") + 8


def test_each_key_is_a_principal_of_its_own_whose_name_is_not_the_key():
    found = [find(["alpha", "beta"], ("x-api-key", key)) for key in ("alpha", "beta")]
    names = {principal.name for principal in found if principal}
    assert len(names) == 2
    assert not any(key in name for name in names for key in ("alpha", "beta"))


@pytest.mark.parametrize(
    "headers",
    [(), (("Authorization", ""),), (("Authorization", "Bearer "),), (("x-api-key", ""),), (("api-key", " "),)],
)
def test_an_empty_credential_is_none(headers):
    assert offered(CIMultiDict(headers)) == []


@pytest.mark.parametrize("any_offered", [True, False])
def test_who_is_refused_is_told_what_to_send(any_offered):
    error = unknown(any_offered=any_offered)
    assert (error.status, error.code, error.headers) == (401, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
    assert ("not valid" if any_offered else "required") in error.message
    for header in ("Authorization: Bearer KEY", "x-api-key", "api-key"):
        assert header in error.message


@pytest.mark.parametrize(
    "key",
    ["wrong", "secret-", "secret-11", "SECRET-1", "ключ", "\udcff", "x" * (MAX_KEY_CHARS + 1), "a\x00b", ""],
)
def test_a_wrong_key_is_nobodys(key):
    assert Keys(["secret-1"]).find(key) is None


def test_an_oversized_key_is_refused_even_if_it_is_configured():
    assert find(["x" * (MAX_KEY_CHARS + 1)], ("x-api-key", "x" * (MAX_KEY_CHARS + 1))) is None


def test_another_scheme_is_not_a_key():
    assert offered(CIMultiDict([("Authorization", "Basic secret-1")])) == []


@pytest.mark.parametrize(
    ("bearer", "api_key", "known_by"),
    [("alpha", "beta", "alpha"), ("sk-dummy", "beta", "beta"), ("alpha", "x", "alpha")],
)
def test_with_several_headers_a_valid_one_is_enough_and_authorization_goes_first(bearer, api_key, known_by):
    both = find(["alpha", "beta"], ("Authorization", f"Bearer {bearer}"), ("x-api-key", api_key))
    assert both == find(["alpha", "beta"], ("api-key", known_by))
    assert both is not None


def test_keys_beyond_ascii_work():
    assert find(["ключ"], ("Authorization", "Bearer ключ"))


def test_an_empty_configured_key_lets_nobody_in():
    assert Keys([""]).find("") is None


def test_keys_are_not_shown_and_not_kept():
    keys = Keys(["secret-1"])
    assert repr(keys) == "<Keys: 1>"
    assert "secret" not in str(vars(keys))
    assert keys
    assert not Keys([])


def test_a_grant_lasts_as_long_as_its_key_is_configured():
    principal = find(["alpha"], ("x-api-key", "alpha"))
    assert principal is not None
    assert Keys(["alpha", "beta"]).of(principal.grant) == principal
    assert Keys(["beta"]).of(principal.grant) is None
    assert Keys(["alpha"]).of(ANONYMOUS.grant) is None
