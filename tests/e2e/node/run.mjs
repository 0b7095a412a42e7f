// Runs every case against the gateway that the environment names; prints one JSON line for each.

import { createOLLM } from "@ofoundation/ollm";
import OpenAI from "openai";

import * as aiCases from "./ai_cases.mjs";
import * as cases from "./cases.mjs";

const options = {
  baseURL: process.env.GATEWAY_BASE_URL,
  apiKey: process.env.GATEWAY_API_KEY,
  maxRetries: 0,
  timeout: 30_000,
};

globalThis.AI_SDK_LOG_WARNINGS = false; // they would stand among the results

const { baseURL, apiKey } = options;
const all = [
  ...Object.entries(cases).map(([name, run]) => [name, () => run(new OpenAI(options))]),
  ...Object.entries(aiCases).map(([name, run]) => [name, () => run(createOLLM({ baseURL, apiKey }))]),
];

for (const [name, run] of all) {
  let failure = null;
  try {
    await run();
  } catch (error) {
    failure = error.stack ?? String(error);
  }
  console.log(JSON.stringify({ name, failure }));
}
