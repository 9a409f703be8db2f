"""How large what an upstream sends may be: each bound with the largest legal thing that it must let pass.

In: nothing. Out: numbers. Must not: hold a bound on what clients send (``settings.Server`` has those).
"""

# One event of a stream. A picture of 1,024 by 1,024 as base64 has 1.5 to 3 MB, and the last event of a Responses stream
# holds all pictures of the answer once more. The default of ``stream.max_event_bytes``.
EVENT_BYTES = 16 * 2**20

# What comes before the first content and is held, beside one event of the largest kind: 10,000 empty deltas of 400
# bytes. Responses repeats the request's instructions and tools in each of its first two events.
PRELUDE_BYTES = 4 * 2**20

# One answer that is held whole. OpenAI's API takes 2,048 texts at once; 3,072 numbers for each, written with 21
# characters, are 132 MB. The default of ``stream.max_answer_bytes``.
ANSWER_BYTES = 256 * 2**20

# A model list. Those of brokers have some thousand entries of 2 KB with prices and descriptions.
MODEL_LIST_BYTES = 16 * 2**20

# What an Ollama reports of one model or of the models that it has in memory; with ``verbose`` the whole vocabulary.
MODEL_FACTS_BYTES = 32 * 2**20

# The body of an error. FastAPI's 422 quotes what it refuses once for each thing wrong with it: a long conversation.
ERROR_BYTES = 4 * 2**20

# A tool call's arguments, where they wait until they are whole: a model that writes a file of 128,000 tokens into one.
TOOL_ARGUMENTS_CHARS = 4 * 2**20
