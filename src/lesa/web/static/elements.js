// Makes elements. Text is always text, never HTML.

/** Return the element with an id. */
export const byId = (id) => document.getElementById(id)

/** Make an element with properties and children; a child is an element or a text. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name)
  const { attributes = {}, ...others } = properties
  Object.assign(element, others)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

/** Make the frame of a photo, with a canvas for the light and a box. */
export function makePhoto(source, alt) {
  const image = make("img", { src: source, alt, loading: "lazy", decoding: "async" })
  const photo = make("span", { className: "photo" }, image, make("canvas"), make("span", { className: "box" }))
  image.addEventListener("error", () => photo.classList.add("unshown"))
  return photo
}

/** Give the frame a photo's proportions, so that percentages are places in the photo. */
export function fit(photo, [width, height]) {
  photo.style.aspectRatio = `${width} / ${height}`
  photo.classList.toggle("tall", width / height < 4 / 3)
}

/** Put the box over its place in the photo. */
export function placeBox(photo, [left, top, right, bottom], [width, height]) {
  const box = photo.querySelector(".box")
  box.style.left = `${(100 * left) / width}%`
  box.style.top = `${(100 * top) / height}%`
  box.style.width = `${(100 * (right - left)) / width}%`
  box.style.height = `${(100 * (bottom - top)) / height}%`
}
