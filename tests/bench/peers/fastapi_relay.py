"""The relay of the usual article: FastAPI, httpx, StreamingResponse, JSON decoded and encoded for each chunk.

``fastapi_relay.py PORT UPSTREAM``
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

client: httpx.AsyncClient


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests."""
    global client  # noqa: PLW0603 - as the article does
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=sys.argv[2], timeout=None, limits=limits, trust_env=False) as made:  # noqa: S113
        client = made
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    """It runs."""
    return {"status": "ok"}


@app.post("/v1/chat/completions", response_model=None)
async def chat(request: Request) -> StreamingResponse | JSONResponse:
    """Relay one request."""
    body = await request.json()
    if body.get("stream"):
        return StreamingResponse(chunks(body), media_type="text/event-stream")
    answer = await client.post("/v1/chat/completions", json=body)
    return JSONResponse(answer.json(), status_code=answer.status_code)


async def chunks(body: dict) -> AsyncIterator[str]:
    """The upstream's chunks, each looked at."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            data = line[len("data: ") :]
            if data == "[DONE]":
                yield "data: [DONE]\n\n"
                break
            yield f"data: {json.dumps(json.loads(data))}\n\n"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, loop="uvloop")
