// A photo's card: the photo, its tags, and the regions that light up.

import { fit, make, makePhoto, placeBox } from "./elements.js"
import { paint } from "./light.js"

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }

/** Make the card of a photo that is not tagged yet. */
export function makeCard(name, url, remove) {
  const photo = makePhoto(url, name)
  const title = make("span", { textContent: name, title: name })
  const button = make("button", { type: "button", textContent: "×", attributes: { "aria-label": `Remove ${name}` } })
  button.addEventListener("click", remove)
  const rest = make("div", {}, make("p", { className: "note", textContent: "waiting …" }))
  const frame = make("div", { className: "frame" }, photo)
  return make("li", { className: "card" }, frame, make("div", { className: "title" }, title, button), rest)
}

/** Show why a photo has no tags. */
export function showError(card, error) {
  card.lastChild.replaceChildren(make("p", { className: "note wrong", textContent: error }))
}

/** Show a photo's tags. */
export function showTags(card, { name, size, crop, full, tags }) {
  const photo = card.querySelector(".photo")
  fit(photo, size)
  const lights = new Lights(photo, size, crop, full)
  lights.show(null)
  const buttons = tags.map((tag) => tagButton(tag, lights))
  const list = make("div", { className: "tags", attributes: { role: "toolbar", "aria-label": `Tags of ${name}` } }, ...buttons)
  if (buttons.length) oneTabStop(list, buttons)
  const nothing = make("p", { className: "note", textContent: "no label reaches the limit" })
  card.lastChild.replaceChildren(buttons.length ? list : nothing)
}

/** Return the text beside a label: the probability if the bundle is calibrated, else the score. */
export function scoreText({ score, probability }) {
  return probability === undefined ? score.toFixed(2) : `${Math.round(100 * probability)} %`
}

/** Knows which tag of a photo is lit: the one that is pointed at, else the one that was pressed. */
class Lights {
  constructor(photo, size, crop, full) {
    Object.assign(this, { photo, size, crop, full, pressed: null, lit: null })
  }

  show(chosen) {
    this.lit?.button.classList.remove("lit")
    this.lit = chosen
    this.photo.classList.toggle("lit", chosen !== null)
    if (chosen === null) return
    chosen.button.classList.add("lit")
    paint(this.photo.querySelector("canvas"), chosen.tag.evidence, this.full, this.crop, this.size)
    placeBox(this.photo, chosen.tag.box, this.size)
  }

  leave() {
    this.show(this.pressed)
  }

  press(chosen) {
    this.pressed?.button.setAttribute("aria-pressed", "false")
    this.pressed = this.pressed === chosen ? null : chosen
    this.pressed?.button.setAttribute("aria-pressed", "true")
    this.show(this.pressed)
  }
}

function tagButton(tag, lights) {
  const button = make("button", { type: "button", attributes: { "aria-pressed": "false" } })
  button.append(make("span", { className: "name", textContent: tag.label }))
  if (!tag.seen) {
    const title = "no training photo carried this label"
    button.append(make("span", { className: "unseen-mark", title }), make("span", { className: "hidden", textContent: title }))
  }
  button.append(make("span", { className: "score", textContent: scoreText(tag), title: `score ${tag.score.toFixed(4)}` }))
  const chosen = { tag, button }
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && lights.show(chosen))
  button.addEventListener("pointerleave", () => lights.leave())
  button.addEventListener("focus", () => button.matches(":focus-visible") && lights.show(chosen))
  button.addEventListener("blur", () => lights.leave())
  button.addEventListener("click", () => lights.press(chosen))
  return button
}

/** Make the Tab key stop once in a list; arrow keys move within it. */
function oneTabStop(list, buttons) {
  const choose = (chosen) => buttons.forEach((button) => (button.tabIndex = button === chosen ? 0 : -1))
  choose(buttons[0])
  list.addEventListener("focusin", (event) => choose(event.target))
  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(event.target)
    const to = { Home: 0, End: buttons.length - 1 }[event.key] ?? at + (STEPS[event.key] ?? 0)
    if (to === at || !buttons[to]) return
    event.preventDefault()
    buttons[to].focus()
  })
}
