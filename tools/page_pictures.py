"""The pictures of the local page in the documents: real Chromium, the default bundle, the example photos.

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

from playwright.sync_api import Locator, Page, sync_playwright

from lesa.cli.serve import listen, make_server
from lesa.index.search import Index
from lesa.index.update import update_index
from lesa.tagger import Tagger
from lesa.web.service import Service

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "photos"
PHOTOS = ("dog.jpg", "cup.jpg", "hedgehog.jpg", "macaw.jpg", "chair.jpg", "temple.jpg")
"""Right, partly right and wrong tags."""


@contextmanager
def serving(index: Path) -> Iterator[str]:
    """Serve the default bundle with an index of the example photos, and yield the page's address."""
    tagger = Tagger("default")
    update_index(index, EXAMPLES, tagger)
    with listen("127.0.0.1", 0) as listener:
        server = make_server(Service(tagger, Index(index, tagger)), ())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def tag(page: Page, address: str, photo: str, chosen: str) -> Locator:
    """Upload the photos, press the chosen tag of one photo, and return this photo's card."""
    page.goto(address)
    page.set_input_files("#files", [EXAMPLES / name for name in PHOTOS])
    page.get_by_text(f"{len(PHOTOS)} photos tagged", exact=True).wait_for()
    card = page.locator("#cards > li", has_text=photo)
    card.locator("button", has_text=chosen).first.click()
    page.mouse.move(0, 0)
    return card


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving(Path(folder) / "index") as address:
            page = browser.new_page(viewport={"width": 1200, "height": 960})
            tag(page, address, "dog.jpg", "german shepherd")
            page.screenshot(path=out / "page.png")
            phone = {"width": 390, "height": 844}
            page = browser.new_page(viewport=phone, device_scale_factor=1.5, color_scheme="dark", has_touch=True)
            tag(page, address, "temple.jpg", "building").evaluate("card => card.scrollIntoView()")
            page.screenshot(path=out / "page-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
