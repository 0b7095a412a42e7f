// Runs every case against the gateway that the environment names; prints one JSON line for each.

import OpenAI from "openai";

import * as cases from "./cases.mjs";

const options = {
  baseURL: process.env.GATEWAY_BASE_URL,
  apiKey: process.env.GATEWAY_API_KEY,
  maxRetries: 0,
  timeout: 30_000,
};

for (const [name, run] of Object.entries(cases)) {
  let failure = null;
  try {
    await run(new OpenAI(options));
  } catch (error) {
    failure = error.stack ?? String(error);
  }
  console.log(JSON.stringify({ name, failure }));
}
