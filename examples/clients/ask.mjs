// The best items of one user, with nothing but Node.js 18 or later: node ask.mjs http://127.0.0.1:8000 1082185 995242
const WAITS_MS = [50, 100, 200, 400, 800];

/** Asks for the best items of a user, and again where no server answers or all are busy. */
async function retrieve(url, history, parameters = {}) {
  const key = 1 + Math.floor(Math.random() * (Number.MAX_SAFE_INTEGER - 1));
  const body = JSON.stringify({
    inputs: [{ name: "behavior_item_ids", datatype: "INT64", shape: [1, history.length], data: history }],
    outputs: ["item_ids", "scores", "status", "request_key"].map((name) => ({ name })),
    parameters: { deadline_ms: 1800, request_key: key, ...parameters },
  });
  for (const wait of [...WAITS_MS, null]) {
    let response;
    try {
      response = await fetch(`${url}/v2/models/nann/infer`, { method: "POST", body, signal: AbortSignal.timeout(2000) });
    } catch (error) {
      if (error.name === "TimeoutError" || wait === null) throw error;
    }
    if (response?.ok) return answerOf(await response.json(), key);
    if (response && (response.status !== 503 || wait === null)) {
      throw new Error(`${response.status}: ${(await response.json()).error}`);
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
  }
}

function answerOf({ outputs }, key) {
  const found = Object.fromEntries(outputs.map(({ name, data }) => [name, data])); // the order is not fixed
  if (found.request_key[0] !== key) throw new Error("this is the answer to another request; send it again");
  const items = found.item_ids.map((id, place) => ({ id, score: found.scores[place] }));
  return { items: items.filter(({ id }) => id !== -1), complete: found.status[0] === 0 }; // -1 is padding
}

const [url, ...ids] = process.argv.slice(2);
const { items } = await retrieve(url, ids.map(Number), { top_k: 10 }); // ids above 2^53 - 1 need more than Number
for (const { id, score } of items) console.log(id, score);
