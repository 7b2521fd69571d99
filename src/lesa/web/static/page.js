// The page: it shows one of its views, takes photos that are dropped on it, and starts the rest.

import { ask } from "./api.js"
import { byId } from "./elements.js"
import { startSearching } from "./searching.js"
import { addPhotos, startTagging } from "./tagging.js"

const VIEWS = ["tag", "search"]

function showView() {
  const chosen = VIEWS.find((view) => `#${view}` === location.hash) ?? VIEWS[0]
  for (const view of VIEWS) {
    byId(view).hidden = view !== chosen
    const link = document.querySelector(`nav a[href="#${view}"]`)
    if (view === chosen) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  scrollTo(0, 0)
}

function take(files) {
  if (!files.length) return
  location.hash = "#tag"
  addPhotos(files)
}

/** Take photos that are dropped anywhere or pasted. */
function acceptPhotos() {
  const show = (shown) => (byId("dropping").hidden = !shown)
  const withFiles = (event) => event.dataTransfer?.types.includes("Files")
  addEventListener("dragover", (event) => {
    if (!withFiles(event)) return
    event.preventDefault()
    show(true)
  })
  addEventListener("dragleave", (event) => event.relatedTarget === null && show(false))
  addEventListener("drop", (event) => {
    if (!withFiles(event)) return
    event.preventDefault()
    show(false)
    take(event.dataTransfer.files)
  })
  addEventListener("paste", (event) => take(event.clipboardData?.files ?? []))
}

showView()
addEventListener("hashchange", showView)
try {
  const about = await ask("/v1/about")
  byId("bundle").textContent = about.bundle
  startTagging(about)
  startSearching(about)
  acceptPhotos()
} catch (error) {
  for (const view of VIEWS) byId(`${view}-problem`).textContent = error.message
}
