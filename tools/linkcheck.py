"""Check every link of the built book: files and anchors within it always, addresses outside it on request.

    .venv/bin/python tools/linkcheck.py [FOLDER] [--external]

FOLDER is _build/html by default. Exit status 1 if a link leads nowhere; each is printed with the page that has it.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

ROOT = Path(__file__).resolve().parent.parent
ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}
AGENT = "Mozilla/5.0 (compatible; snnbook link check)"
#: Answers of servers that are there but do not serve programs.
REFUSALS = (401, 403, 405, 406, 418, 429, 503)
#: A schema that is part of no address to follow.
SKIPPED = ("mailto", "data", "javascript", "blob", "tel")


class Page(HTMLParser):
    """Anchors and links of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note ``id``, ``name`` of anchors, and addresses."""
        found = dict(attributes)
        self.anchors.update(filter(None, (found.get("id"), found.get("name") if tag == "a" else None)))
        value = found.get(ATTRIBUTES.get(tag, ""))
        if value and found.get("rel") not in ("preconnect", "dns-prefetch"):
            self.links.append(value)


class Broken(NamedTuple):
    """A link that leads nowhere."""

    page: str
    link: str
    why: str


def pages(folder: Path) -> dict[Path, Page]:
    """Every page below ``folder`` by its resolved path; the theme's templates, which it leaves there, are none."""
    found = (p for p in sorted(folder.rglob("*.html")) if not p.name.endswith("macros.html"))
    return {p.resolve(): Page(p.read_text(encoding="utf-8")) for p in found}


def internal(folder: Path, known: dict[Path, Page]) -> list[Broken]:
    """Links within the book whose file or anchor is not there, or that leave ``folder``."""
    broken, folder = [], folder.resolve()
    for path, page in known.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            name = str(path.relative_to(folder))
            if not target.is_relative_to(folder):
                broken.append(Broken(name, link, "outside the book"))
            elif not target.is_file():
                broken.append(Broken(name, link, "no such file"))
            elif anchor and target in known and unquote(anchor) not in known[target].anchors:
                broken.append(Broken(name, link, "no such anchor"))
    return broken


def outside(known: dict[Path, Page]) -> dict[str, list[Path]]:
    """Addresses outside the book, without their anchors, and the pages that have them."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path, page in known.items():
        for link in page.links:
            if urlsplit(link).scheme not in ("", *SKIPPED):
                found[urldefrag(link)[0]].append(path)
    return dict(found)


def reach(address: str, tries: int = 3, pause: float = 2.0) -> str:
    """Why an address cannot be reached, "" if it can or its server only refuses programs."""
    why = ""
    for attempt in range(tries):
        time.sleep(pause * attempt)
        try:
            request = urllib.request.Request(address, headers={"User-Agent": AGENT})
            with urllib.request.urlopen(request, timeout=20):
                return ""
        except urllib.error.HTTPError as error:
            if error.code in REFUSALS:
                return ""
            why = f"{error.code} {error.reason}"
            if error.code in (404, 410):
                break
        except (OSError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
    return why


def external(folder: Path, known: dict[Path, Page], reach: Callable[[str], str] = reach) -> list[Broken]:
    """Addresses outside the book that cannot be reached, each with the first page that has it."""
    found = outside(known)
    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(reach, found))
    first = {address: str(where[0].relative_to(folder.resolve())) for address, where in found.items()}
    return [Broken(first[a], a, why) for a, why in zip(found, reasons, strict=True) if why]


def report(broken: Iterable[Broken]) -> int:
    """Print broken links; the exit status."""
    broken = sorted(broken)
    for page, link, why in broken:
        print(f"{page}: {link} ({why})")
    return int(bool(broken))


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--external", action="store_true", help="check addresses outside the book too")
    args = parser.parse_args(arguments)
    if not (args.folder / "index.html").is_file():
        sys.exit(f"There is no book in {args.folder}: build it first (make book).")
    known = pages(args.folder)
    broken = internal(args.folder, known) + (external(args.folder, known) if args.external else [])
    links = sum(len(page.links) for page in known.values())
    print(f"{len(known)} pages, {links} links, {len(outside(known))} addresses outside, {len(broken)} broken")
    return report(broken)


if __name__ == "__main__":
    sys.exit(main())
