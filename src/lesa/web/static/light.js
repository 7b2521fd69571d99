// Where a tag comes from, on the photo: all of it is dimmed but for the regions that speak for the tag.

const DIM = "rgb(8 10 20 / 64%)"
const WIDTH = 320
const RISE = 0.75 // as the pictures of `lesa show`

/** Paint a map over a photo. `view` is the part of the photo that the map covers, in the photo's pixels. */
export function paint(canvas, map, view, [width, height]) {
  canvas.width = WIDTH
  canvas.height = Math.max(1, Math.round((WIDTH * height) / width))
  const scale = WIDTH / width
  const [left, top, right, bottom] = view.map((side) => side * scale)
  const context = canvas.getContext("2d")
  context.fillStyle = DIM
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.globalCompositeOperation = "destination-out"
  context.imageSmoothingQuality = "high"
  context.drawImage(small(map), left, top, right - left, bottom - top)
}

/** Return a picture of a pixel a region, the more opaque the more evidence. */
function small(map) {
  const canvas = document.createElement("canvas")
  canvas.height = map.length
  canvas.width = map[0].length
  const pixels = new ImageData(canvas.width, canvas.height)
  map.flat().forEach((value, i) => (pixels.data[4 * i + 3] = 255 * value ** RISE))
  canvas.getContext("2d").putImageData(pixels, 0, 0)
  return canvas
}
