"""Takes the ``response`` object out of the events of a Responses stream.

In: decoded event payloads. Out: the response that the upstream would have given without ``stream``.
Must not: raise on any JSON, or build output from deltas (the last event holds it whole).
"""

from typing_extensions import override

from edge.protocol.dialect import Collector

_LAST = ("response.completed", "response.incomplete", "response.failed")  # a tuple: a type may be unhashable JSON


class ResponsesCollector(Collector):
    """The collector of ``/v1/responses``."""

    def __init__(self) -> None:
        self._response: dict[str, object] = {}
        self._final = False

    @override
    def add(self, event: dict[str, object]) -> None:
        """Take one event; only those with a ``response`` matter, and none after the last one."""
        if self._final or not isinstance(event, dict):
            return
        response = event.get("response")
        if isinstance(response, dict):
            self._response = response
            self._final = str(event.get("type")) in _LAST

    @override
    def answer(self) -> dict[str, object]:
        """The final response; before there is one, the last that was seen."""
        return dict(self._response)
