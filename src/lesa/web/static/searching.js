// Searching: words go to the server, and small pictures come back. Whole photos of the index are never sent.

import { postJson } from "./api.js"
import { hitLines, hitRows, save } from "./download.js"
import { byId, fit, make, makePhoto, placeBox } from "./elements.js"

let hits = []

/** Start, when the server has said whether there is an index. */
export function startSearching(about) {
  byId("query").hidden = about.index === null
  byId("no-index").hidden = about.index !== null
  if (about.index === null) return
  byId("photos").max = about.limits.top
  byId("search-status").textContent = `${about.index.photos.toLocaleString("en")} photos of ${about.index.name}`
  byId("query").addEventListener("submit", (event) => {
    event.preventDefault()
    search(byId("words").value.trim(), byId("photos").value)
  })
  byId("hits-jsonl").addEventListener("click", () => save("found.jsonl", hitLines(hits)))
  byId("hits-csv").addEventListener("click", () => save("found.csv", hitRows(hits)))
}

async function search(words, top) {
  byId("search-problem").textContent = ""
  byId("search-status").textContent = "Searching …"
  try {
    const answer = await postJson("/v1/search", { words, top: Number(top) })
    hits = answer.photos
    const rough = answer.composed.length ? " Their vector is put together from the single words, so it is rough." : ""
    byId("search-status").textContent = `The best photos for “${words}”. There is always a best photo, even if no photo shows this.${rough}`
  } catch (error) {
    hits = []
    byId("search-problem").textContent = error.message
    byId("search-status").textContent = ""
  }
  byId("search-actions").hidden = hits.length === 0
  byId("hits").replaceChildren(...hits.map(makeHit))
}

function makeHit({ id, name, score, box, size }) {
  const photo = makePhoto(`/v1/thumbnails/${id}`, "")
  fit(photo, size)
  placeBox(photo, box, size)
  const about = make("span", { className: "about" }, make("span", { textContent: name, title: name }), make("span", { textContent: score.toFixed(2) }))
  const title = "where the model looked"
  const button = make("button", { type: "button", className: "hit", title, attributes: { "aria-pressed": "false" } })
  button.append(make("span", { className: "frame" }, photo), about)
  button.addEventListener("click", () => button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true")))
  return make("li", { className: "card" }, button)
}
