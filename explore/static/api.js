/** The page's own server. */

/** What went wrong: `kind` is away, overloaded, late, refused or failed. */
export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(`/api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("gone", "This page's own server has ended. Start `nann explore` again.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({ kind: "failed", message: `status ${response.status}` }));
  throw new Refusal(body.kind, body.message);
}

export const get = async (path, options) => (await answered(path, options)).json();

export const bytes = async (path) => (await answered(path)).arrayBuffer();

export const post = async (path, body, signal) =>
  (
    await answered(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    })
  ).json();
