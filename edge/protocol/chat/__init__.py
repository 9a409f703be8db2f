"""The surfaces of OpenAI's chat completions, completions and transcriptions."""
