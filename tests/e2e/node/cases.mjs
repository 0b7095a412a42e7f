// What the official Node client must get from the gateway. Each export is one case.

import assert from "node:assert/strict";

import OpenAI from "openai";

const TEXT = 'Grüße, 世界 🌍: tell me "choices": of a\nnew line';
const messages = [{ role: "user", content: TEXT }];
const ask = { model: "sim_echo", messages };
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: {
        type: "object",
        properties: { city: { type: "string" }, days: { type: "integer" } },
        required: ["city", "days"],
      },
    },
  },
];
const PIXEL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

async function gathered(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");

export async function a_whole_answer(client) {
  const answer = await client.chat.completions.create(ask);
  assert.equal(answer.choices[0].message.content, TEXT);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.model, "sim_echo");
  const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
}

export async function many_answers_at_once(client) {
  const numbers = Array.from({ length: 50 }, (_, number) => `number ${number}`);
  const answers = await Promise.all(
    numbers.map((content) =>
      client.chat.completions.create({ model: "sim_echo", messages: [{ role: "user", content }] }),
    ),
  );
  assert.deepEqual(
    answers.map((answer) => answer.choices[0].message.content),
    numbers,
  );
}

export async function a_stream_with_usage_at_its_end(client) {
  for (const model of ["sim_echo", "near_sim_chat", "phala_sim_chat", "vercel_sim_chat"]) {
    const stream_options = { include_usage: true };
    const stream = await client.chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options,
    });
    const chunks = await gathered(stream);
    assert.equal(textOf(chunks), TEXT);
    assert.deepEqual(new Set(chunks.map((c) => c.model)), new Set([model]));
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
    assert.ok(chunks.slice(0, -1).every((c) => c.choices.length === 1));
  }
}

export async function a_stream_without_usage_unasked(client) {
  const chunks = await gathered(await client.chat.completions.create({ ...ask, stream: true }));
  assert.equal(textOf(chunks), TEXT);
  assert.ok(chunks.every((c) => c.choices.length === 1 && !c.usage));
}

export async function a_tool_call_and_its_result(client) {
  const first = await client.chat.completions.create({ ...ask, tools, tool_choice: "required" });
  const { message, finish_reason } = first.choices[0];
  assert.equal(finish_reason, "tool_calls");
  const [call] = message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city", "days"]);
  const result = { role: "tool", tool_call_id: call.id, content: "blue" };
  const second = await client.chat.completions.create({
    ...ask,
    messages: [...messages, message, result],
    tools,
  });
  assert.equal(second.choices[0].finish_reason, "stop");
}

export async function a_streamed_tool_call_put_together_by_the_client(client) {
  const stream = client.chat.completions.stream({ ...ask, tools });
  const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city", "days"]);
}

export async function structured_answers(client) {
  const schema = tools[0].function.parameters;
  const parsed = await client.chat.completions.parse({
    ...ask,
    response_format: { type: "json_schema", json_schema: { name: "weather", strict: true, schema } },
  });
  assert.deepEqual(Object.keys(parsed.choices[0].message.parsed), ["city", "days"]);
  const object = await client.chat.completions.create({
    ...ask,
    response_format: { type: "json_object" },
  });
  assert.deepEqual(JSON.parse(object.choices[0].message.content), { echo: TEXT });
}

export async function logprobs(client) {
  const answer = await client.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 });
  const entries = answer.choices[0].logprobs.content;
  assert.equal(entries.map((entry) => entry.token).join(""), TEXT);
  assert.ok(entries.every((entry) => entry.top_logprobs.length === 2));
}

export async function image_parts(client) {
  const content = [
    { type: "text", text: "what is on" },
    { type: "image_url", image_url: { url: PIXEL } },
  ];
  const answer = await client.chat.completions.create({
    model: "sim_echo",
    messages: [{ role: "user", content }],
  });
  assert.equal(answer.choices[0].message.content, "what is on [image]");
}

export async function failures_by_their_own_classes(client) {
  const expected = [
    ["no_such_model", OpenAI.NotFoundError, 404, "model_not_found"],
    ["sim_fault_400", OpenAI.BadRequestError, 400, "invalid_value"],
    ["sim_fault_429", OpenAI.RateLimitError, 429, "upstream_rate_limited"],
    ["sim_fault_500", OpenAI.InternalServerError, 502, "upstream_error"],
    ["sim_fault_401", OpenAI.InternalServerError, 502, "upstream_rejected_credentials"],
  ];
  for (const [model, kind, status, code] of expected) {
    for (const stream of [false, true]) {
      await assert.rejects(client.chat.completions.create({ model, messages, stream }), (error) => {
        assert.equal(error.constructor, kind, String(error));
        assert.deepEqual([error.status, error.code], [status, code]);
        assert.ok(error.requestID);
        assert.equal(error.headers.has("retry-after"), status === 429);
        return true;
      });
    }
  }
  const stranger = client.withOptions({ apiKey: "not a key" });
  await assert.rejects(stranger.chat.completions.create(ask), OpenAI.AuthenticationError);
}

export async function a_cut_stream_raises(client) {
  for (const kind of ["cut_after_20", "malformed", "error_in_stream", "no_done"]) {
    const heard = [];
    const model = `sim_fault_${kind}`;
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    await assert.rejects(async () => {
      for await (const chunk of stream) heard.push(chunk);
    }, OpenAI.APIError);
    assert.ok(textOf(heard).length > 0, `${kind}: the beginning was relayed`);
  }
}

export async function a_client_that_gives_up(client) {
  const slow = { model: "sim_fault_slow_first_byte", messages };
  await assert.rejects(
    client.chat.completions.create(slow, { timeout: 500 }),
    OpenAI.APIConnectionTimeoutError,
  );
  const stream = await client.chat.completions.create({
    model: "sim_fault_endless",
    messages,
    stream: true,
  });
  let heard = 0;
  for await (const _ of stream) if (++heard === 10) break;
  assert.equal(heard, 10);
}

export async function models(client) {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("sim_echo"));
  assert.equal((await client.models.retrieve("near_sim_chat")).model_info.tier, "TEE");
  await assert.rejects(client.models.retrieve("no_such_model"), OpenAI.NotFoundError);
}

export async function headers_and_our_own_fields(client) {
  const episode = "0190a0c0-0000-7000-8000-000000000001";
  const { data, response, request_id } = await client.chat.completions
    .create({
      ...ask,
      service_tier: "flex",
      "ollm::episode_id": episode,
      "ollm::tags": { team: "blau" },
      "ollm::include_raw_usage": true,
      "ollm::include_raw_response": true,
    })
    .withResponse();
  assert.equal(data.id, `chatcmpl-${request_id.replaceAll("-", "")}`);
  assert.equal(data.episode_id, episode);
  assert.equal(data.ollm_raw_usage[0].data.total_tokens, data.usage.total_tokens);
  assert.equal(JSON.parse(data.ollm_raw_response[0].data).choices[0].message.content, TEXT);
  assert.ok(Number(response.headers.get("x-ollm-cost-usd")) > 0);
  assert.ok(Number(response.headers.get("x-ollm-overhead-ms")) > 0);
  assert.match(response.headers.get("server-timing"), /auth;dur=.*queue;dur=.*upstream;dur=/);
  await assert.rejects(
    client.chat.completions.create({ ...ask, zebra: 1, "ollm::deny_unknown_fields": true }),
    /zebra/,
  );
}
