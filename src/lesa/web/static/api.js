// Requests to the server that this page came from.

const TRIES = 20

/** Return the JSON of an answer. If the request fails, throw an Error with a message for people. */
export async function ask(path, options = {}) {
  for (let tries = 1; ; tries++) {
    const answer = await send(path, options)
    const value = await answer.json().catch(() => ({}))
    if (answer.ok) return value
    if (answer.status !== 503 || tries === TRIES) throw new Error(sentence(value.error ?? `the server answered ${answer.status}`))
    await pause(Number(answer.headers.get("retry-after") ?? 1))
  }
}

/** Post a form: values that are lists become fields of the same name. */
export function postForm(path, fields) {
  const body = new FormData()
  for (const [name, values] of Object.entries(fields)) for (const value of [values].flat()) body.append(name, value)
  return ask(path, { method: "POST", body })
}

/** Post JSON. */
export function postJson(path, value) {
  return ask(path, { method: "POST", body: JSON.stringify(value), headers: { "content-type": "application/json" } })
}

/** Return a message as a sentence. */
export function sentence(text) {
  const end = /[.?!]$/.test(text) ? "" : "."
  return text.charAt(0).toUpperCase() + text.slice(1) + end
}

async function send(path, options) {
  try {
    return await fetch(path, options)
  } catch {
    throw new Error("The server does not answer. Is `lesa serve` still running? Start it and try again.")
  }
}

function pause(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds))
}
