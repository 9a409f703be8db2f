"""The OpenAPI document has each field that a parser reads: who adds one and forgets the document, fails here."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.canonical import ASKED

from edge.api.openapi_document import document
from edge.protocol.dialects import SPECS
from edge.protocol.surface import Surface

# By surface, the schema of its request. Sessions come by a route of their own, whose body Edge completes.
REQUESTS = {
    Surface.CHAT: "ChatRequest",
    Surface.COMPLETIONS: "CompletionRequest",
    Surface.RESPONSES: "ResponsesRequest",
    Surface.MESSAGES: "MessagesRequest",
    Surface.OLLAMA_CHAT: "OllamaChatRequest",
    Surface.OLLAMA_GENERATE: "OllamaGenerateRequest",
}


class Read(dict[str, Any]):
    """A body that notes which of its fields are asked for."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.fields: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.fields.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.fields.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.fields.add(str(name))
        return super().__contains__(name)

    def pop(self, name: str, *default: Any) -> Any:
        self.fields.add(name)
        return super().pop(name, *default)


def described(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """The names of a schema's properties, through references and parts."""
    if "$ref" in schema:
        yield from described(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    yield from schema.get("properties", ())
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        yield from described(part, schemas)


def test_every_surface_with_a_parser_is_looked_at() -> None:
    assert {surface for surface, spec in SPECS.items() if spec.parse} == {*REQUESTS, Surface.SESSION}


@pytest.mark.parametrize("surface", REQUESTS, ids=str)
def test_each_field_that_is_read_is_described(surface: Surface) -> None:
    schemas = document(have_keys=False, have_metrics=True)["components"]["schemas"]
    body, parse = Read({"model": "m", "stream": True, **ASKED[surface]}), SPECS[surface].parse
    assert parse is not None
    parse(body)
    assert body.fields, "the parser reads its fields off the body"
    known = set(described(schemas[REQUESTS[surface]], schemas))
    assert body.fields - known == set()
