"""Take the README's picture: a page of the built book, as book/_static/readme_page.png (at most 300 KB).

    .venv/bin/python tools/screenshot.py [PAGE] [OUTPUT]

PAGE is a page of the book, with the section to show: ``notebooks/11_rmpe_derivation#the-picture``. Needs a
Chromium.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from browser import chromium

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 300_000


def shoot(url: str, section: str = "", width: int = 1280, height: int = 1000) -> bytes:
    """PNG of a page at ``section`` (the id of a heading) or its top, after its formulas are set."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        page.goto(url)
        page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise; }")
        page.evaluate("(id) => document.getElementById(id)?.scrollIntoView()", section)
        return page.screenshot()


def small(png: bytes) -> bytes:
    """The picture in as few colours as needed to stay within ``MAX_BYTES``."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        packed = io.BytesIO()
        picture.quantize(colours).save(packed, format="PNG", optimize=True)
        if packed.tell() <= MAX_BYTES:
            break
    return packed.getvalue()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", default="notebooks/11_rmpe_derivation#the-picture")
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "book" / "_static" / "readme_page.png")
    args = parser.parse_args()
    page, _, section = args.page.partition("#")
    source = ROOT / "_build" / "html" / f"{page}.html"
    if not source.is_file():
        sys.exit(f"There is no page {page}: build the book first (make book).")
    args.output.write_bytes(small(shoot(source.as_uri(), section)))
    print(f"{args.output.name}: {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
