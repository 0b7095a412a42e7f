// What the AI SDK must get from the gateway through the provider made for this API. Each export is
// one case.

import assert from "node:assert/strict";

import { APICallError, embed, embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const TEXT = 'Grüße, 世界 🌍: tell me "choices": of a\nnew line';
const quiet = { maxRetries: 0 };

export async function ai_generates_text(ollm) {
  const { text, usage, finishReason, response } = await generateText({
    ...quiet,
    model: ollm.chatModel("sim_echo"),
    prompt: TEXT,
  });
  assert.equal(text, TEXT);
  assert.equal(finishReason, "stop");
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
  assert.ok(response.id.startsWith("chatcmpl-"));
}

export async function ai_streams_text_of_confidential_models(ollm) {
  for (const name of ["near_sim_chat", "phala_sim_chat", "vercel_sim_chat"]) {
    const result = streamText({ ...quiet, model: ollm.chatModel(name), prompt: TEXT });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    assert.ok(text.length > 0, name);
    assert.equal(await result.finishReason, "stop", name);
  }
}

export async function ai_calls_a_tool_and_goes_on(ollm) {
  const asked = [];
  const { text, steps } = await generateText({
    ...quiet,
    model: ollm.chatModel("sim_echo"),
    prompt: "What is the weather?",
    stopWhen: stepCountIs(2),
    tools: {
      get_weather: tool({
        description: "The weather of a city.",
        inputSchema: z.object({ city: z.string(), days: z.number().int() }),
        execute: async (input) => {
          asked.push(input);
          return { sky: "blue" };
        },
      }),
    },
  });
  assert.equal(asked.length, 1);
  assert.equal(typeof asked[0].city, "string");
  assert.equal(steps.length, 2);
  assert.ok(text.length > 0);
}

export async function ai_generates_an_object(ollm) {
  const { object } = await generateObject({
    ...quiet,
    model: ollm.chatModel("sim_echo"),
    prompt: "A person.",
    output: "no-schema", // this provider passes no schema on
  });
  assert.equal(typeof object, "object");
}

export async function ai_embeds_one_and_many(ollm) {
  const model = ollm.embeddingModel("ollm::embedding_model_name::sim_embed");
  const one = await embed({ ...quiet, model, value: "red fish" });
  const many = await embedMany({ ...quiet, model, values: ["red fish", "blue bird"] });
  assert.deepEqual(many.embeddings[0], one.embedding);
  assert.equal(many.embeddings.length, 2);
  assert.equal(one.usage.tokens, 2);
}

export async function ai_maps_errors(ollm) {
  const expected = { sim_fault_429: 429, sim_fault_500: 502, sim_fault_400: 400, unheard_of: 404 };
  for (const [name, status] of Object.entries(expected)) {
    const asked = generateText({ ...quiet, model: ollm.chatModel(name), prompt: "x" });
    const error = await asked.then(() => null, (raised) => raised);
    assert.ok(APICallError.isInstance(error), `${name}: ${error}`);
    assert.equal(error.statusCode, status, name);
    assert.equal(error.isRetryable, status === 429 || status >= 500, name);
    assert.ok(error.message.length > 0, name);
  }
}

export async function ai_notices_a_cut_stream(ollm) {
  let failure = null;
  const result = streamText({
    ...quiet,
    model: ollm.chatModel("sim_fault_cut_after_20"),
    prompt: "word ".repeat(60),
    onError: ({ error }) => {
      failure = error;
    },
  });
  try {
    for await (const piece of result.textStream) assert.ok(piece !== undefined);
    await result.finishReason;
  } catch (error) {
    failure = error;
  }
  assert.ok(failure !== null, "a cut stream looked whole");
}
