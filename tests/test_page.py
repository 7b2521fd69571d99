"""The page in a real browser: photos in, tags, light on the photo, other words, search, files; no other origin."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.small_run import SEEN, UNSEEN
from helpers.small_server import CALIBRATION, Client, serving
from lesa.tagger import Tagger
from lesa.web.limits import Limits

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

LABELS = len(UNSEEN + SEEN)
PATIENCE = 60_000
"""Milliseconds: a busy machine is slow."""


@pytest.fixture(scope="module")
def collection(small_bundle: Path) -> Path:
    (small_bundle / "<b>bold<b>.jpg").write_bytes(b"no photo")
    return small_bundle


@pytest.fixture(scope="module")
def server(collection: Path) -> Iterator[Client]:
    with serving(collection) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with api.sync_playwright() as playwright:
        # The sandbox of Chromium needs rights that test machines rarely give; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser", server: Client) -> Iterator["Page"]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    yield from opened(context, server)


@pytest.fixture
def phone(browser: "Browser", server: Client) -> Iterator["Page"]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark")
    yield from opened(context, server)


def opened(context: "BrowserContext", server: Client, bundle: str = "small.lesa") -> Iterator["Page"]:
    """Open the page; when the test is over, nothing may have gone wrong in it, and no other origin been asked."""
    origin = f"http://127.0.0.1:{server.port}/"
    wrong: list[str] = []
    context.set_default_timeout(PATIENCE)
    api.expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda each: None if each.url.startswith((origin, "blob:" + origin)) else wrong.append(each.url))
    page.goto(origin)
    api.expect(page.locator("#bundle")).to_have_text(bundle)
    yield page
    context.close()
    assert wrong == []


def is_wrong(message: "ConsoleMessage") -> bool:
    # The browser notes every refusal (422); the page says it, too.
    return message.type in ("error", "warning") and "status of 422" not in message.text


def photos(collection: Path, *names: str) -> list[Path]:
    return [collection / "photos" / f"{name}.jpg" for name in names]


def put(page: "Page", files: list[Path], status: str) -> None:
    page.set_input_files("#files", files)
    api.expect(page.locator("#tag-status")).to_have_text(status)


def saved(page: "Page", button: str) -> tuple[str, str]:
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8")


def darkness(page: "Page") -> Any:
    """Return how opaque the veil over the first photo is: (rows, columns) of a coarse grid, 0 to 255."""
    return page.evaluate(
        """() => {
          const canvas = document.querySelector(".card canvas"), { width, height } = canvas
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height)
          const place = (i, length) => Math.floor(((i + 0.5) / 20) * length)
          const steps = [...Array(20).keys()]
          return steps.map((y) => steps.map((x) => data[4 * (place(y, height) * width + place(x, width)) + 3]))
        }"""
    )


def requests_of(page: "Page") -> list[str]:
    bodies: list[str] = []

    def note(request: "Request") -> None:
        if request.url.endswith("/v1/tag"):
            bodies.append((request.post_data_buffer or b"").decode("latin-1"))

    page.on("request", note)
    return bodies


def test_photos_are_tagged_and_a_tag_lights_its_region_up(page: "Page", collection: Path) -> None:
    put(page, photos(collection, "cat-0", "rocket-1"), "2 photos tagged")
    card = page.locator(".card").first
    tags, photo, box = card.locator(".tags button"), card.locator(".photo"), card.locator(".box")
    api.expect(page.locator(".card")).to_have_count(2)
    api.expect(tags).to_have_count(5)
    api.expect(box).to_have_css("opacity", "0")
    tags.nth(1).hover()
    api.expect(box).to_have_css("opacity", "1")
    api.expect(photo).to_have_class(re.compile(r"\blit\b"))
    veil = darkness(page)
    whole, framed = photo.bounding_box(), box.bounding_box()
    assert whole is not None
    assert framed is not None
    across = 20 * (framed["x"] + framed["width"] / 2 - whole["x"]) / whole["width"]
    down = 20 * (framed["y"] + framed["height"] / 2 - whole["y"]) / whole["height"]
    # Bright where the box is, dark where the network did not look: at the sides of what was cut out of the middle.
    assert veil[int(down)][int(across)] < 130 < 150 < veil[0][0]
    page.mouse.move(2, 2)
    api.expect(box).to_have_css("opacity", "0")


def test_the_keyboard_does_all_of_it(page: "Page", collection: Path) -> None:
    put(page, photos(collection, "cat-0"), "1 photo tagged")
    box, tags = page.locator(".card .box"), page.locator(".card .tags button")
    page.locator(".card .title button").focus()
    page.keyboard.press("Tab")
    api.expect(tags.nth(0)).to_be_focused()
    api.expect(box).to_have_css("opacity", "1")
    page.keyboard.press("ArrowDown")
    api.expect(tags.nth(1)).to_be_focused()
    page.keyboard.press("End")
    api.expect(tags.nth(4)).to_be_focused()
    page.keyboard.press("Enter")
    api.expect(tags.nth(4)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Shift+Tab")
    api.expect(box).to_have_css("opacity", "1")
    page.keyboard.press("Enter")
    api.expect(page.locator(".card")).to_have_count(0)
    api.expect(page.locator("#empty")).to_be_visible()
    page.focus("#labels")
    page.keyboard.type("red")
    page.keyboard.press("Tab")
    api.expect(page.locator("#own")).to_be_focused()
    page.keyboard.press("Enter")
    api.expect(page.locator("#own-labels")).to_contain_text("animal, table, flag, cat")


def test_other_words_do_not_send_the_photo_again(page: "Page", collection: Path) -> None:
    bodies = requests_of(page)
    put(page, photos(collection, "cat-0", "coffee-2"), "2 photos tagged")
    # The browser does not tell bodies that hold files.
    assert ['name="ids"' in body for body in bodies] == [False, False]
    page.fill("#labels", "moon\nred car\nParis")
    page.click("#again")
    names = page.locator(".card").last.locator(".tags .name")
    api.expect(names).to_have_count(3)
    assert sorted(names.all_text_contents()) == ["Paris", "moon", "red car"]
    page.fill("#top", "1")
    page.keyboard.press("Enter")
    api.expect(names).to_have_count(1)
    page.fill("#threshold", "1e6")
    page.keyboard.press("Enter")
    api.expect(page.locator(".card .note").first).to_have_text("no label reaches the limit")
    assert [re.findall('name="(photos|ids)"', body) for body in bodies[2:]] == [["ids", "ids"]] * 3


def test_what_went_wrong_is_said(page: "Page", collection: Path) -> None:
    put(page, [collection / "<b>bold<b>.jpg", *photos(collection, "cat-0")], "1 photo tagged, 1 could not be read")
    api.expect(page.locator(".note.wrong")).to_have_text("<b>bold<b>.jpg is not a photo that can be read.")
    assert page.locator(".card b").count() == 0
    page.fill("#labels", "qwertz")
    with page.expect_response("**/v1/tag") as refused:
        page.click("#again")
    assert refused.value.status == 422
    api.expect(page.locator("#tag-problem")).to_contain_text("no vector for 'qwertz'")
    page.fill("#labels", "")
    page.click("#again")
    api.expect(page.locator("#tag-problem")).to_be_empty()
    api.expect(page.locator(".card").last.locator(".tags button")).to_have_count(5)


def test_tags_are_saved_in_the_formats_of_the_command(page: "Page", collection: Path) -> None:
    put(page, photos(collection, "cat-0", "rocket-1"), "2 photos tagged")
    name, text = saved(page, "#tags-jsonl")
    lines = [json.loads(line) for line in text.splitlines()]
    assert (name, [line["photo"] for line in lines]) == ("tags.jsonl", ["cat-0.jpg", "rocket-1.jpg"])
    assert set(lines[0]) == {"photo", "size", "tags"}
    assert set(lines[0]["tags"][0]) == {"label", "score", "seen", "box"}
    name, text = saved(page, "#tags-csv")
    header, *rows = csv.reader(text.splitlines())
    assert (name, header) == ("tags.csv", ["photo", "label", "score", "seen", "left", "top", "right", "bottom"])
    expected = [[line["photo"], tag["label"], *map(str, tag["box"])] for line in lines for tag in line["tags"]]
    assert [[row[0], row[1], *row[4:]] for row in rows] == expected


def test_the_index_is_searched(page: "Page") -> None:
    page.click("nav a >> text=Search")
    api.expect(page.locator("#search-status")).to_have_text("24 photos of photos")
    page.fill("#words", "red")
    page.fill("#photos", "6")
    page.click("#query button")
    hits = page.locator(".hit")
    api.expect(hits).to_have_count(6)
    for hit in hits.all():
        image = hit.locator("img")
        image.scroll_into_view_if_needed()
        api.expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") == 120
    api.expect(hits.first.locator(".box")).to_have_css("opacity", "0")
    hits.first.hover()
    api.expect(hits.first.locator(".box")).to_have_css("opacity", "1")
    name, text = saved(page, "#hits-jsonl")
    assert (name, len(text.splitlines())) == ("found.jsonl", 6)
    assert set(json.loads(text.splitlines()[0])) == {"photo", "score", "box", "size"}
    assert saved(page, "#hits-csv")[1].startswith("photo,score,left,top,right,bottom\n")


def test_photos_may_be_dropped_anywhere(page: "Page", collection: Path) -> None:
    page.click("nav a >> text=Search")
    content = list(photos(collection, "cat-0")[0].read_bytes())
    page.evaluate(
        """content => {
          const dataTransfer = new DataTransfer()
          dataTransfer.items.add(new File([new Uint8Array(content)], "dropped.jpg", { type: "image/jpeg" }))
          for (const kind of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }))
        }""",
        content,
    )
    api.expect(page.locator("#tag-status")).to_have_text("1 photo tagged")
    api.expect(page.locator(".card .title span")).to_have_text("dropped.jpg")
    api.expect(page.locator("#dropping")).to_be_hidden()


def test_on_a_phone_nothing_is_cut_off_and_a_touch_lights_up(phone: "Page", collection: Path) -> None:
    put(phone, photos(collection, "cat-0", "rocket-1"), "2 photos tagged")
    tag, box = phone.locator(".card .tags button").first, phone.locator(".card .box").first
    tag.tap()
    api.expect(box).to_have_css("opacity", "1")
    tag.tap()
    api.expect(box).to_have_css("opacity", "0")
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    red, green, blue = map(int, re.findall(r"\d+", phone.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert max(red, green, blue) < 40
    phone.tap("nav a >> text=Search")
    phone.fill("#words", "red")
    phone.keyboard.press("Enter")
    api.expect(phone.locator(".hit")).to_have_count(12)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390


def test_photos_that_the_server_let_go_are_sent_again(browser: "Browser", collection: Path) -> None:
    with serving(collection, indexed=False, limits=Limits(kept=1, photo=30_000)) as server:
        context = browser.new_context()
        for page in opened(context, server):
            put(page, photos(collection, "cat-0", "rocket-1"), "2 photos tagged")
            page.fill("#labels", "moon")
            page.click("#again")
            api.expect(page.locator(".card .tags button")).to_have_count(2)
            api.expect(page.locator("#tag-status")).to_have_text("2 photos tagged")
            large = collection / "large.jpg"
            large.write_bytes(bytes(30_001))
            put(page, [large], "2 photos tagged, 1 could not be read")
            page.click("nav a >> text=Search")
            api.expect(page.locator("#no-index")).to_be_visible()


def test_a_server_that_stopped_is_told(browser: "Browser", collection: Path) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    with serving(collection, indexed=False) as server:
        page.goto(f"http://127.0.0.1:{server.port}/")
        put(page, photos(collection, "cat-0"), "1 photo tagged")
    page.fill("#labels", "moon")
    page.click("#again")
    api.expect(page.locator("#tag-problem")).to_contain_text("The server does not answer.")
    context.close()


def test_a_file_that_cannot_be_read_does_not_hold_the_others_up(page: "Page", collection: Path, tmp_path: Path) -> None:
    bodies = requests_of(page)
    files = [tmp_path / f"{name}.jpg" for name in "abc"]
    for file in files:
        file.write_bytes(photos(collection, "cat-0")[0].read_bytes())
    held: list[Route] = []
    page.route("**/v1/tag", lambda route: route.continue_() if held else held.append(route))
    page.set_input_files("#files", files)
    for image in page.locator(".card img").all():
        api.expect(image).to_have_js_property("naturalWidth", 120)
    # While the first is on its way, the second changes.
    files[1].write_bytes(b"changed")
    held[0].continue_()
    api.expect(page.locator("#tag-status")).to_have_text("2 photos tagged, 1 could not be read")
    api.expect(page.locator(".note.wrong")).to_have_text("The file cannot be read (a folder?).")
    api.expect(page.locator("#tag-problem")).to_be_empty()
    put(page, [collection / "<b>bold<b>.jpg"], "2 photos tagged, 2 could not be read")
    sent = len(bodies)
    page.fill("#labels", "moon")
    page.click("#again")
    api.expect(page.locator(".card").first.locator(".tags button")).to_have_count(1)
    api.expect(page.locator("#tag-status")).to_have_text("2 photos tagged, 2 could not be read")
    # What could not be read is not sent again.
    assert [re.findall('name="(photos|ids)"', body) for body in bodies[sent:]] == [["ids", "ids"]]


def shows(page: "Page", expected: list[tuple[str, float]], least: float) -> None:
    some = [(label, probability) for label, probability in expected if probability >= least]
    api.expect(page.locator(".tags .name")).to_have_text([label for label, _ in some])
    api.expect(page.locator(".tags .score")).to_have_text([f"{100 * probability:.0f} %" for _, probability in some])


def test_a_calibrated_bundle_shows_probabilities(browser: "Browser", collection: Path) -> None:
    with serving(collection, calibrated=True) as server:
        context = browser.new_context(accept_downloads=True)
        for page in opened(context, server, "calibrated.lesa"):
            api.expect(page.locator("#least")).to_have_text("Least probability, %")
            own = f"{100 * CALIBRATION.threshold:g}"
            api.expect(page.locator("#threshold")).to_have_attribute("placeholder", own)
            api.expect(page.locator("#top")).to_have_value("")
            put(page, photos(collection, "cat-0"), "1 photo tagged")
            found = Tagger(collection / "calibrated.lesa").tag(photos(collection, "cat-0")[0], top=None)
            expected = [(tag.label, tag.probability or 0) for tag in found]

            shows(page, expected, CALIBRATION.threshold)
            _, text = saved(page, "#tags-csv")
            header, *rows = csv.reader(text.splitlines())
            assert header[-1] == "probability"
            assert [row[-1] for row in rows] == [f"{share:.4f}" for _, share in expected if share >= 0.4]
            line = json.loads(saved(page, "#tags-jsonl")[1])
            assert line["tags"][0]["probability"] == pytest.approx(expected[0][1], abs=1e-4)
            for value, least in (("97", 0.97), ("0", 0), ("", CALIBRATION.threshold)):
                page.fill("#threshold", value)
                page.keyboard.press("Enter")
                shows(page, expected, least)
            page.fill("#labels", "red car\nmoon")
            page.click("#again")
            api.expect(page.locator(".tags button")).to_have_count(2)
            api.expect(page.locator("#composed")).to_have_text(
                "The vectors of these labels are put together from their words, so they are rough: red car."
            )
            page.click("nav a >> text=Search")
            page.fill("#words", "red car")
            page.click("#query button")
            api.expect(page.locator("#search-status")).to_contain_text(
                "Their vector is put together from the single words"
            )
            page.fill("#words", "moon")
            page.click("#query button")
            api.expect(page.locator("#search-status")).to_contain_text("“moon”")
            api.expect(page.locator("#search-status")).not_to_contain_text("put together")


def test_probabilities_are_shown_in_per_cent(page: "Page") -> None:
    shown = page.evaluate(
        """async () => {
          const { scoreText } = await import("/card.js")
          return [scoreText({ score: 1.234, probability: 0.876 }), scoreText({ score: 1.234 })]
        }"""
    )
    assert shown == ["88 %", "1.23"]
