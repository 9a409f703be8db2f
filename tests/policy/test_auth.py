import pytest
from multidict import CIMultiDict

from edge.errors import Unauthorized
from edge.policy.auth import MAX_KEY_CHARS, Keys, Principal


def check(keys: list[str], *headers: tuple[str, str]) -> Principal:
    return Keys(keys).check(CIMultiDict(headers))


def refused(keys: list[str], *headers: tuple[str, str]) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        check(keys, *headers)
    return caught.value


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer secret-1"),
        ("authorization", "bearer   secret-1 "),
        ("AUTHORIZATION", "BEARER secret-1"),
        ("x-api-key", "secret-1"),
        ("X-Api-Key", " secret-1 "),
    ],
)
def test_a_key_is_known_in_either_header(header):
    principal = check(["other", "secret-1"], header)
    assert not principal.anonymous
    assert principal.name.startswith("key-")
    assert len(principal.name) == len("key-") + 8


def test_each_key_is_a_principal_of_its_own_whose_name_is_not_the_key():
    names = {check(["alpha", "beta"], ("x-api-key", key)).name for key in ("alpha", "beta")}
    assert len(names) == 2
    assert not any(key in name for name in names for key in ("alpha", "beta"))


@pytest.mark.parametrize("headers", [(), (("Authorization", "Bearer sk-dummy"),), (("x-api-key", "ключ"),)])
def test_without_keys_everybody_is_anonymous_whatever_the_sdk_sends(headers):
    assert check([], *headers) == Principal("anonymous", anonymous=True)


@pytest.mark.parametrize(
    "headers", [(), (("Authorization", ""),), (("Authorization", "Bearer "),), (("x-api-key", ""),)]
)
def test_a_missing_key_is_told_what_to_send(headers):
    error = refused(["secret-1"], *headers)
    assert (error.status, error.code, error.headers) == (401, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
    assert "required" in error.message
    assert "Authorization: Bearer KEY" in error.message
    assert "x-api-key" in error.message


@pytest.mark.parametrize(
    "key",
    ["wrong", "secret-", "secret-11", "SECRET-1", "ключ", "\udcff", "x" * (MAX_KEY_CHARS + 1), "a\x00b"],
)
@pytest.mark.parametrize("form", [("Authorization", "Bearer {}"), ("x-api-key", "{}")])
def test_a_wrong_key_is_refused_without_an_echo(form, key):
    error = refused(["secret-1"], (form[0], form[1].format(key)))
    assert "not valid" in error.message
    assert "secret" not in error.message
    assert key not in error.message


def test_an_oversized_key_is_refused_even_if_it_is_configured():
    assert refused(["x" * (MAX_KEY_CHARS + 1)], ("x-api-key", "x" * (MAX_KEY_CHARS + 1)))


def test_another_scheme_is_not_a_key():
    assert "required" in refused(["secret-1"], ("Authorization", "Basic secret-1")).message


@pytest.mark.parametrize(
    ("bearer", "api_key", "known_by"),
    [("alpha", "beta", "alpha"), ("sk-dummy", "beta", "beta"), ("alpha", "x", "alpha")],
)
def test_with_both_headers_a_valid_one_is_enough_and_authorization_goes_first(bearer, api_key, known_by):
    both = check(["alpha", "beta"], ("Authorization", f"Bearer {bearer}"), ("x-api-key", api_key))
    assert both == check(["alpha", "beta"], ("x-api-key", known_by))


def test_two_wrong_headers_are_refused():
    assert refused(["alpha"], ("Authorization", "Bearer x"), ("x-api-key", "y"))


def test_keys_beyond_ascii_work():
    assert check(["ключ"], ("Authorization", "Bearer ключ")).name.startswith("key-")


def test_an_empty_configured_key_lets_nobody_in():
    assert refused([""], ("Authorization", "Bearer "))


def test_keys_are_not_shown_and_not_kept():
    keys = Keys(["secret-1"])
    assert repr(keys) == "<Keys: 1>"
    assert "secret" not in str(vars(keys))
    assert keys
    assert not Keys([])
