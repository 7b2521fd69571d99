// Tagging: each photo is sent once; requests for other labels use the ids that the server gave.

import { postForm, sentence } from "./api.js"
import { makeCard, showError, showTags } from "./card.js"
import { save, tagLines, tagRows } from "./download.js"
import { byId } from "./elements.js"

const photos = []
let limits
let percent = 1 // the form's threshold is divided by this: 100 if the bundle is calibrated and takes probabilities
let settings // the form's values when they were last read
let asked = 0 // the number of times that the settings changed; a photo with another number in `done` must be tagged
let working = false

/** Start, when the server has said what it can do. */
export function startTagging(about) {
  limits = about.limits
  byId("top").max = limits.top
  if (about.calibrated) {
    byId("least").textContent = "Least probability, %"
    const own = Number((100 * about.threshold).toPrecision(6))
    Object.assign(byId("threshold"), { min: 0, max: 100, placeholder: String(own) })
    Object.assign(byId("top"), { value: "", placeholder: "auto", required: false })
    byId("choice").hidden = false
    percent = 100
  }
  byId("count").textContent = about.labels.length
  byId("own-labels").textContent = about.labels.join(", ")
  byId("own").addEventListener("click", showOwnLabels)
  byId("files").addEventListener("change", (event) => {
    addPhotos(event.target.files)
    event.target.value = "" // so that the same photo can be chosen again
  })
  byId("asked").addEventListener("submit", (event) => {
    event.preventDefault()
    work()
  })
  for (const id of ["labels", "top", "threshold"]) byId(id).addEventListener("change", work)
  byId("labels").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("asked").requestSubmit()
  })
  byId("clear").addEventListener("click", () => remove([...photos]))
  byId("tags-jsonl").addEventListener("click", () => save("tags.jsonl", tagLines(tagged())))
  byId("tags-csv").addEventListener("click", () => save("tags.csv", tagRows(tagged())))
}

/** Add photos that were chosen, dropped or pasted. */
export function addPhotos(files) {
  for (const file of files) {
    const photo = { file, name: file.name, url: URL.createObjectURL(file), id: null, tags: null, error: null, done: -1 }
    photo.card = makeCard(photo.name, photo.url, () => remove([photo]))
    photos.push(photo)
    byId("cards").append(photo.card)
  }
  work()
}

function remove(gone) {
  for (const photo of gone) {
    URL.revokeObjectURL(photo.url)
    photo.card.remove()
    photos.splice(photos.indexOf(photo), 1)
  }
  report()
}

/** Tag photos until all have the tags asked for. Photos and labels may change while this waits for the server. */
async function work() {
  takeSettings()
  report()
  if (working) return
  working = true
  byId("tag-problem").textContent = ""
  try {
    for (let todo = waiting(); todo.length; todo = waiting()) {
      await tagSome(todo)
      report()
    }
  } catch (error) {
    byId("tag-problem").textContent = error.message
  } finally {
    working = false
    report()
  }
}

async function tagSome(todo) {
  const now = asked
  const held = todo.filter((photo) => photo.id).slice(0, limits.ids)
  const some = held.length ? held : todo.slice(0, 1)
  const error = held.length ? null : await whyNot(some[0].file)
  if (error) return receive(some[0], { error }, now)
  const sent = held.length ? { ids: held.map((photo) => photo.id) } : { photos: some[0].file }
  const answer = await postForm("/v1/tag", { ...settings, ...sent })
  byId("composed").textContent = answer.composed.length
    ? `The vectors of these labels are put together from their words, so they are rough: ${answer.composed.join(", ")}.`
    : ""
  some.forEach((photo, i) => receive(photo, answer.photos[i], now))
}

/** Return the reason if a file cannot be sent. The browser reports a file that it cannot read as a network error. */
async function whyNot(file) {
  if (file.size > limits.photo) return `the photo has more than ${Math.floor(limits.photo / 2 ** 20)} MiB`
  try {
    await file.slice(0, 1).arrayBuffer()
  } catch {
    return "the file cannot be read (a folder?)"
  }
}

function receive(photo, { id, size, crop, full_colour: full, tags, error, gone }, now) {
  if (gone) {
    photo.id = null // so that the next round sends it again
    return
  }
  Object.assign(photo, { id: id ?? null, size, crop, full, tags: tags ?? null, error: error ?? null, done: now })
  if (photo.error) showError(photo.card, sentence(photo.error))
  else showTags(photo.card, photo)
}

function takeSettings() {
  if (!byId("asked").reportValidity()) return
  const now = { labels: byId("labels").value.trim(), top: byId("top").value, threshold: threshold() }
  if (settings && Object.keys(now).every((key) => now[key] === settings[key])) return
  settings = now
  asked++
}

/** Return the threshold in the form, as text. Empty means the bundle's own; 0 means that every label is a tag. */
const threshold = () => (byId("threshold").value === "" ? "" : String(byId("threshold").value / percent))

/** Return the photos that must be tagged; a photo that could not be read is not tried again. */
const waiting = () => photos.filter((photo) => photo.done !== asked && !photo.error)
const tagged = () => photos.filter((photo) => photo.tags)

function report() {
  const left = waiting().length
  const wrong = photos.filter((photo) => photo.error).length
  byId("empty").hidden = photos.length > 0
  byId("legend").hidden = byId("tag-actions").hidden = photos.length === 0
  byId("progress").hidden = !working || !left
  byId("progress").max = photos.length
  byId("progress").value = photos.length - left
  byId("tag-status").textContent = photos.length ? statusText(left, wrong) : ""
}

function statusText(left, wrong) {
  const failed = wrong ? `, ${wrong} could not be read` : ""
  const done = photos.length - left - wrong
  return left ? `${done} of ${count(photos.length)} tagged${failed}` : `${count(done)} tagged${failed}`
}

const count = (number) => `${number} ${number === 1 ? "photo" : "photos"}`

function showOwnLabels() {
  const list = byId("own-labels")
  list.hidden = !list.hidden
  byId("own").setAttribute("aria-expanded", String(!list.hidden))
}
