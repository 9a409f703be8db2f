"""How a client asks for a thing in Ollama's own API, and what it reads out of an answer; see ``speakers``."""

import orjson
from cross.matrix.said import PNG, Json, Told, Want
from cross.matrix.speakers import TOOL, chat_history
from support.raw import Answer


class OllamaClient:
    name, path, whole, at_once = "ollama-chat", "/api/chat", True, False
    takes = frozenset({"image", "stop", "schema", "tools", "system", "history"})
    shows = frozenset({"reasoning", "calls"})

    def body(self, want: Want) -> Json:
        before = [{"role": "system", "content": want.system}] if want.system else []
        before += chat_history(ids=False) if want.history else []
        image = {"images": [PNG]} if want.image else {}
        body = {"model": "m", "messages": [*before, {"role": "user", "content": "hi", **image}]}
        return self._with_rest(body, want)

    def told(self, answer: Answer) -> Told:
        told = Told(answer.status)
        for line in map(orjson.loads, answer.body.splitlines()):
            assert not told.done, "nothing follows the last line"
            if "error" in line:
                assert set(line) == {"error"}
                told.error = line["error"]
                continue
            held = line.get("message", line)
            told.text += held.get("content") or held.get("response") or ""
            told.reasoning += held.get("thinking") or ""
            calls = held.get("tool_calls") or []
            told.calls += [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            told.call_ids += [call["id"] for call in calls if "id" in call]
            if line["done"]:
                told.done = True
                told.usage = (line["prompt_eval_count"], line["eval_count"])
                told.finish = "tool_calls" if told.calls and line["done_reason"] == "stop" else line["done_reason"]
        return told

    def _with_rest(self, body: Json, want: Want) -> Json:
        body |= {} if want.stream else {"stream": False}
        if want.stop:
            body["options"] = {"stop": list(want.stop)}
        if want.schema is not None:
            body["format"] = want.schema
        if want.tools:
            body["tools"] = [{"type": "function", "function": TOOL}]
        return {**body, **want.extra}


class GenerateClient(OllamaClient):
    name, path = "ollama-generate", "/api/generate"
    takes = frozenset({"image", "stop", "schema", "system"})

    def body(self, want: Want) -> Json:
        image = {"images": [PNG]} if want.image else {}
        system = {"system": want.system} if want.system else {}
        return self._with_rest({"model": "m", "prompt": "hi", **image, **system}, want)


class RawGenerateClient(GenerateClient):
    """The prompt is to be continued as it stands."""

    name = "ollama-generate-raw"
    takes = frozenset({"stop"})

    def body(self, want: Want) -> Json:
        return {**super().body(want), "raw": True}
