// Shows on the photo where a tag comes from: the photo is dark except for the regions with evidence for the tag.

const DIM = "rgb(8 10 20 / 64%)"
const WIDTH = 320
const RISE = 0.75 // the same as in the pictures of `lesa show`

/**
 * Paint a tag's evidence over a photo. `full` is the evidence that makes a region fully bright; `crop` is the part of
 * the photo that the evidence covers, in the photo's pixels.
 */
export function paint(canvas, evidence, full, crop, [width, height]) {
  canvas.width = WIDTH
  canvas.height = Math.max(1, Math.round((WIDTH * height) / width))
  const scale = WIDTH / width
  const [left, top, right, bottom] = crop.map((side) => side * scale)
  const context = canvas.getContext("2d")
  context.fillStyle = DIM
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.globalCompositeOperation = "destination-out"
  context.imageSmoothingQuality = "high"
  context.drawImage(small(evidence, full), left, top, right - left, bottom - top)
}

/** Return a picture with one pixel per region: the more evidence, the more opaque. */
function small(evidence, full) {
  const canvas = document.createElement("canvas")
  canvas.height = evidence.length
  canvas.width = evidence[0].length
  const pixels = new ImageData(canvas.width, canvas.height)
  const share = (value) => Math.max(value, 0) / Math.max(full, 1e-12)
  evidence.flat().forEach((value, i) => (pixels.data[4 * i + 3] = 255 * share(value) ** RISE))
  canvas.getContext("2d").putImageData(pixels, 0, 0)
  return canvas
}
