"""Which Edges a request has passed, as its header says: one's own is a circle, and nothing else is passed on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.errors import LoopDetected
from edge.policy.hops import HEADER, MOST, Hop, ids_in

OTHER = "edge-" + "a" * 16


def test_each_edge_adds_itself_and_the_first_sees_itself_again() -> None:
    hops = [Hop() for _ in range(3)]
    assert len({hop.id for hop in hops}) == 3
    headers = hops[0].headers
    for number, hop in enumerate(hops[1:], start=1):
        passed = hop.passed([headers[HEADER]])
        assert passed == tuple(before.id for before in hops[:number])
        headers = hop.onward(passed)
    for hop in hops:
        with pytest.raises(LoopDetected) as told:
            hop.passed([headers[HEADER]])
        assert (told.value.status, told.value.retryable) == (508, False)


@pytest.mark.parametrize(
    "values",
    [
        [f"{OTHER}, cloudflare; loops=1", "fastly"],
        ["cloudflare", f'{OTHER}; x="y"'],
        [f"cloudflare,{OTHER},{OTHER}"],
    ],
)
def test_other_entries_are_left_out(values: list[str]) -> None:
    hop = Hop()
    assert hop.passed(values) == (OTHER,)
    assert hop.onward((OTHER,)) == {HEADER: f"{OTHER}, {hop.id}"}


@pytest.mark.parametrize("value", ["", ",", "edge-1", f"x{OTHER}", f"{OTHER}b", f"not-{OTHER}", OTHER.upper()])
def test_what_is_no_edge_is_none(value: str) -> None:
    assert Hop().passed([value]) == ()


def test_a_chain_has_an_end() -> None:
    chain = [f"edge-{number:016x}" for number in range(MOST)]
    assert len(Hop().passed([", ".join(chain[1:])])) == MOST - 1
    with pytest.raises(LoopDetected):
        Hop().passed([", ".join(chain)])


@unhurried
@given(st.lists(st.text(st.characters(codec="latin-1")), max_size=5))
def test_no_header_is_a_failure(values: list[str]) -> None:
    assert HEADER in Hop().onward(Hop().passed(values))


@pytest.mark.parametrize("value", [None, 1, "edge", [OTHER, 1], ["x"], [OTHER] * (MOST + 1), {OTHER: 1}])
def test_what_another_edge_says_is_looked_at(value: object) -> None:
    assert ids_in(value) is None
    assert ids_in([OTHER]) == (OTHER,)
