// Another client's day: a response by the helper, one with calls, one in one piece, an error. Prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "unused", maxRetries: 0, timeout: 10000 });
const ask = { model: "m", input: "hi" };
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", name: "weather", parameters, strict: false }];
const seen = {};

let pieces = 0;
const stream = client.responses.stream(ask).on("response.output_text.delta", () => { pieces += 1; });
const final = await stream.finalResponse();
seen.stream = { text: final.output_text, status: final.status, pieces };

const called = await client.responses.stream({ ...ask, tools }).finalResponse();
seen.calls = called.output.map((item) => [item.name, JSON.parse(item.arguments)]);

const whole = await client.responses.create(ask);
seen.whole = { text: whole.output_text, tokens: whole.usage.total_tokens };

seen.broken = null;
try {
  for await (const event of await client.responses.create({ ...ask, stream: true })) {
    if (event.type === "error") seen.broken = event.message;
  }
} catch (error) {
  seen.broken ??= error.message;
}
console.log(JSON.stringify(seen));
