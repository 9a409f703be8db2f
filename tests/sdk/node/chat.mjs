// One client's day with Edge: a stream by the helper, tools, an answer in one piece, an error. Prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "unused", maxRetries: 0, timeout: 10000 });
const messages = [{ role: "user", content: "hi" }];
const tool = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};
const seen = {};

const stream = client.chat.completions.stream({ model: "m", messages });
let pieces = 0;
stream.on("content", () => { pieces += 1; });
const final = await stream.finalChatCompletion();
seen.stream = { text: final.choices[0].message.content, finish: final.choices[0].finish_reason, pieces };

const called = await client.chat.completions.stream({ model: "m", messages, tools: [tool] }).finalChatCompletion();
seen.calls = called.choices[0].message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
seen.callsFinish = called.choices[0].finish_reason;

const whole = await client.chat.completions.create({ model: "m", messages });
seen.whole = { text: whole.choices[0].message.content, tokens: whole.usage.total_tokens };

try {
  for await (const _ of await client.chat.completions.create({ model: "m", messages, stream: true })) { /* until it breaks */ }
  seen.broken = null;
} catch (error) {
  seen.broken = error.message;
}
console.log(JSON.stringify(seen));
