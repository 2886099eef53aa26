// What the test programs are told of the running gateway, and the few helpers that they share.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const { SLUICE_URL, SLUICE_UPSTREAM, SLUICE_ENGINES } = process.env;

export const WORKER = 'sluice-tiny';
export const PARIS = [{ role: 'user', content: 'What is the capital of France?' }];
export const GREEDY = { model: WORKER, messages: PARIS, temperature: 0 };

export function sdk(key = 'sk-sdk', options = {}) {
  return new OpenAI({ baseURL: `${SLUICE_URL}/v1`, apiKey: key, maxRetries: 0, timeout: 60_000, ...options });
}

/** The models to ask in a test that needs a capability: the scripted one, and the worker's once it can. */
export function enginesFor(capability) {
  const models = JSON.parse(SLUICE_ENGINES)[capability];
  assert.ok(models, `${capability} is a known capability`);
  return models;
}

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

/** What the scripted engine was asked under a model's name, the latest first. */
export async function calls(model) {
  const all = await (await fetch(`${SLUICE_UPSTREAM}/calls`)).json();
  return all.filter((call) => call.model === model).reverse();
}

export async function goOn() {
  await fetch(`${SLUICE_UPSTREAM}/go-on`, { method: 'POST' });
}

/** Return once `condition` holds; fail if it never does. */
export async function eventually(condition, what) {
  const deadline = Date.now() + 20_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what}: never`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
