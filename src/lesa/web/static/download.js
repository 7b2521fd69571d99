// Results as files, in the formats of `lesa tag` and `lesa search`.

/** Return tagged photos as JSON Lines: one object per photo. */
export function tagLines(photos) {
  return photos.map(({ name, size, tags }) => JSON.stringify({ photo: name, size, tags: tags.map(withoutEvidence) }) + "\n").join("")
}

/** Return tagged photos as CSV: one row per tag. */
export function tagRows(photos) {
  const calibrated = photos.some(({ tags }) => tags.some((tag) => tag.probability !== undefined))
  const header = ["photo", "label", "score", "seen", "left", "top", "right", "bottom"]
  const last = (tag) => (calibrated ? [tag.probability.toFixed(4)] : [])
  const rows = photos.flatMap(({ name, tags }) =>
    tags.map((tag) => [name, tag.label, tag.score.toFixed(4), Number(tag.seen), ...tag.box, ...last(tag)]),
  )
  return csv([calibrated ? [...header, "probability"] : header, ...rows])
}

/** Return found photos as JSON Lines. */
export function hitLines(hits) {
  return hits.map(({ name, score, box, size }) => JSON.stringify({ photo: name, score, box, size }) + "\n").join("")
}

/** Return found photos as CSV. */
export function hitRows(hits) {
  const header = ["photo", "score", "left", "top", "right", "bottom"]
  return csv([header, ...hits.map(({ name, score, box }) => [name, score.toFixed(4), ...box])])
}

/** Save a text as a file. */
export function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }))
  const link = document.createElement("a")
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}

function withoutEvidence({ evidence, ...tag }) {
  return tag
}

function csv(rows) {
  return rows.map((row) => row.map(cell).join(",") + "\n").join("")
}

function cell(value) {
  const text = String(value)
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
