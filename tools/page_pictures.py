"""The pictures of the local page in the documents: real Chromium, the default bundle, photos of scikit-image's wheel.

    python tools/page_pictures.py docs/pictures

Chromium must be on the machine. Writes page.png (a wide window) and page-phone.png (a phone, dark).
"""

import argparse
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import skimage
from playwright.sync_api import Page, sync_playwright

from lesa.cli.serve import listen, make_server
from lesa.index.search import Index
from lesa.index.update import update_index
from lesa.tagger import Tagger
from lesa.web.service import Service

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")
WORDS = ("coffee cup", "animal", "woman", "motorcycle", "space suit", "camera", "man", "athlete")


@contextmanager
def serving(photos: Path, index: Path) -> Iterator[str]:
    """Serve the default bundle with an index of the photos, and yield the page's address."""
    tagger = Tagger("default")
    update_index(index, photos, tagger)
    with listen("127.0.0.1", 0) as listener:
        server = make_server(Service(tagger, Index(index, tagger)), ())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def tag(page: Page, address: str, photos: Path, words: tuple[str, ...], chosen: str) -> None:
    """Upload the photos, ask for the words, and press the chosen tag of the motorcycle."""
    page.goto(address)
    page.fill("#labels", "\n".join(words))
    page.fill("#top", "4")
    page.set_input_files("#files", [photos / name for name in PHOTOS])
    page.get_by_text(f"{len(PHOTOS)} photos tagged", exact=True).wait_for()
    card = page.locator("#cards > li", has_text="motorcycle_left.png")
    card.locator("button", has_text=chosen).first.click()


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for name in PHOTOS:
            shutil.copy(Path(skimage.__file__).parent / "data" / name, photos / name)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving(photos, Path(folder) / "index") as address:
            page = browser.new_page(viewport={"width": 1200, "height": 920})
            tag(page, address, photos, WORDS, "motorcycle")
            page.screenshot(path=out / "page.png")
            phone = {"width": 390, "height": 844}
            page = browser.new_page(viewport=phone, device_scale_factor=1.5, color_scheme="dark", has_touch=True)
            tag(page, address, photos, (), "red")
            page.locator("#cards > li", has_text="motorcycle_left.png").evaluate("card => card.scrollIntoView()")
            page.mouse.move(0, 0)
            page.screenshot(path=out / "page-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
