"""How a client asks for a thing in Responses, and what it reads out of an answer; see ``speakers``."""

import orjson
from cross.matrix.said import CALLS, PNG, RESULTS, Json, Told, Want
from cross.matrix.speakers import TOOL, openai_error
from support.raw import RESPONSES, Answer
from support.responses import events_of, well_formed


class ResponsesClient:
    name, path, whole, at_once = "responses", RESPONSES, True, False
    takes = frozenset({"image", "stop", "schema", "tools", "system", "history"})
    shows = frozenset({"reasoning", "calls"})

    def body(self, want: Want) -> Json:
        content: list[Json] = [{"type": "input_text", "text": "hi"}]
        if want.image:
            content.append({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"})
        given = [*(self._history() if want.history else []), {"role": "user", "content": content}]
        body: Json = {"model": "m", "input": given, "stream": want.stream}
        if want.system:
            body["instructions"] = want.system
        if want.stop:
            body["stop"] = list(want.stop)  # not OpenAI's, but servers beside Edge have it
        if want.schema is not None:
            body["text"] = {"format": {"type": "json_schema", "name": "a", "schema": want.schema}}
        if want.tools:
            body["tools"] = [{"type": "function", **TOOL}]
        return {**body, **want.extra}

    def told(self, answer: Answer) -> Told:
        if answer.headers["content-type"].startswith("application/json"):
            body = answer.json
            if body.get("error"):
                return Told(answer.status, error=openai_error(body))
            return self._read(body)
        events = events_of(answer)
        if events[-1]["type"] == "response.failed":
            error, failed = events[-2], events[-1]["response"]
            assert set(error) == {"type", "code", "message", "param", "sequence_number"}
            assert (failed["status"], failed["error"]["message"]) == ("failed", error["message"])
            said = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
            return Told(answer.status, "".join(said), error=error["message"])
        return self._read(well_formed(events))

    def _history(self) -> list[Json]:
        calls = [
            {"type": "function_call", "call_id": f"c{n}", "name": name, "arguments": orjson.dumps(given).decode()}
            for n, (name, given) in enumerate(CALLS)
        ]
        results = [
            {"type": "function_call_output", "call_id": f"c{n}", "output": text} for n, text in enumerate(RESULTS)
        ]
        return [
            {"role": "user", "content": "the time?"},
            {"role": "assistant", "content": "I look"},
            *calls,
            *results,
            {"role": "assistant", "content": "It is late"},
        ]

    def _read(self, response: Json) -> Told:
        told = Told(200, done=True)
        for item in response["output"]:
            match item["type"]:
                case "message":
                    told.text += "".join(part["text"] for part in item["content"])
                case "reasoning":
                    told.reasoning += "".join(part["text"] for part in item["content"])
                case "function_call":
                    told.calls.append((item["name"], orjson.loads(item["arguments"])))
                    told.call_ids.append(item["call_id"])
        if response["status"] == "incomplete":
            assert response["incomplete_details"] == {"reason": "max_output_tokens"}
            told.finish = "length"
        else:
            assert response["status"] == "completed"
            told.finish = "tool_calls" if told.calls else "stop"
        usage = response["usage"]  # null where the server has told none
        told.usage = usage and (usage["input_tokens"], usage["output_tokens"])
        return told
