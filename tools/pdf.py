"""Print the built book as one PDF, _build/snnbook.pdf: pages in the order of the contents, solutions unfolded.

    .venv/bin/python tools/pdf.py [OUTPUT]

A headless Chromium prints each page in its light colours; pypdf joins them, with bookmarks for parts, chapters and
sections, page numbers, and links between pages that stay within the file. Needs a Chromium and the built book.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import yaml
from playwright.sync_api import Browser
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Fit, NameObject, TextStringObject

sys.path.insert(0, str(Path(__file__).resolve().parent))

from browser import chromium

ROOT = Path(__file__).resolve().parent.parent
MARGIN = {"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"}

#: What paper does not need: bars, buttons, folded code, things to click.
STYLE = """
.bd-header, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .bd-footer-content, .bd-footer,
.prev-next-footer, .headerlink, .toggle-button, .copybtn, .tag_hide-input details, details.hide > summary,
#pst-skip-link, .pst-async-banner-revealer, .skip-link { display: none !important; }
.bd-main .bd-content .bd-article-container, .bd-container, .bd-container__inner, .bd-page-width
  { max-width: none !important; padding: 0 !important; margin: 0 !important; }
html, body { font-size: 11px !important; background: white !important; }
pre { white-space: pre-wrap !important; overflow-wrap: anywhere; }
table { max-width: 100%; font-size: 85%; }
img, svg { max-width: 100% !important; }
h1, h2, h3, h4 { break-after: avoid; }
figure, table, [data-explorer], .admonition-title { break-inside: avoid; }
"""
UNFOLD = """async () => {
  for (const e of document.querySelectorAll("#jb-print-toc, .bd-sidebar-secondary, .headerlink")) e.remove();
  for (const e of document.querySelectorAll(".toggle-hidden")) e.classList.remove("toggle-hidden");
  for (const e of document.querySelectorAll(".solution details, details.solution, details.sd-sphinx-override"))
    e.open = true;
  for (const e of document.querySelectorAll("img[loading=lazy]")) e.loading = "eager";
  if (window.MathJax?.startup) await MathJax.startup.promise;
  await Promise.all([...document.images].map((i) => i.decode().catch(() => {})));
  return [...document.querySelectorAll(".bd-article h2")].map((e) => e.innerText.trim());
}"""


def contents(root: Path) -> list[tuple[str, list[str]]]:
    """Parts of the book as (caption, page names without suffix), the first without caption."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = [("", [toc["root"]])]
    for part in toc["parts"]:
        pages = [page["file"] for chapter in part["chapters"] for page in (chapter, *chapter.get("sections", []))]
        found.append((part.get("caption", ""), pages))
    return found


def print_page(browser: Browser, source: Path) -> tuple[PdfReader, list[str]]:
    """One page of the book as a PDF of its own, and the titles of its sections."""
    page = browser.new_page(color_scheme="light", viewport={"width": 1000, "height": 1400})
    try:
        page.goto(source.as_uri())
        page.evaluate("document.documentElement.dataset.theme = 'light'")
        page.emulate_media(media="print")
        page.add_style_tag(content=STYLE)
        sections = page.evaluate(UNFOLD)
        data = page.pdf(format="A4", margin=MARGIN, print_background=True, outline=True, tagged=True)
        return PdfReader(io.BytesIO(data)), sections
    finally:
        page.close()


def numbers(browser: Browser, count: int) -> PdfReader:
    """``count`` empty pages with their numbers at the foot."""
    foot = "height:297mm;display:flex;align-items:end;justify-content:center;box-sizing:border-box;padding-bottom:8mm"
    body = "".join(f'<div style="{foot};break-after:page">{n}</div>' for n in range(1, count + 1))
    page = browser.new_page()
    page.set_content(f"<style>@page {{margin:0}} body {{margin:0;font:9pt sans-serif}}</style>{body}")
    data = page.pdf(format="A4", print_background=False)
    page.close()
    return PdfReader(io.BytesIO(data))


def _within(link: str, starts: dict[Path, int]) -> int | None:
    """Page of the PDF that a link to a file of the book leads to."""
    path = Path(unquote(urlsplit(urldefrag(link)[0]).path))
    return starts.get(path)


def mend_links(writer: PdfWriter, starts: dict[Path, int]) -> int:
    """Lead links to pages of the book to their place in the PDF, and drop those to other files; how many are left."""
    kept = 0
    for page in writer.pages:
        links = ArrayObject()
        for reference in page.get("/Annots") or ():
            link = reference.get_object()
            address = str((link.get("/A") or {}).get("/URI", ""))
            if address.startswith("file:"):
                target = _within(address, starts)
                if target is None:
                    continue
                there = writer.pages[target].indirect_reference
                del link["/A"]
                link[NameObject("/Dest")] = ArrayObject([there, NameObject("/Fit")])
            kept += 1
            links.append(reference)
        if "/Annots" in page:
            page[NameObject("/Annots")] = links
    return kept


def title(source: Path) -> str:
    """Title of a page of the book."""
    text = source.read_text(encoding="utf-8")
    return html.unescape(text.partition("<title>")[2].partition("</title>")[0]).partition(" — ")[0].strip()


def join(browser: Browser, folder: Path, parts: list[tuple[str, list[str]]]) -> PdfWriter:
    """All pages of the book in one PDF."""
    writer, starts = PdfWriter(), {}
    for caption, names in parts:
        part = None
        for name in names:
            source = folder / f"{name}.html"
            (one, sections), at = print_page(browser, source), len(writer.pages)
            writer.append(one, import_outline=False)
            starts[source.resolve()] = at
            if caption and part is None:
                part = writer.add_outline_item(caption, at, fit=Fit.fit())
            chapter = writer.add_outline_item(title(source), at, parent=part, fit=Fit.fit())
            _bookmark(writer, one, sections, at, chapter)
    mend_links(writer, starts)
    marks = numbers(browser, len(writer.pages))
    for page, mark in zip(writer.pages, marks.pages, strict=False):
        page.merge_page(mark)
        page.compress_content_streams()
    return writer


def _bookmark(writer: PdfWriter, one: PdfReader, sections: list[str], at: int, parent) -> None:
    """Bookmarks of a chapter's sections, on the pages where Chromium's own are."""
    below = next((e for e in one.outline if isinstance(e, list)), [])
    entries = [e for e in below if not isinstance(e, list)]
    titles = sections if len(sections) == len(entries) else [e.title for e in entries]
    for text, entry in zip(titles, entries, strict=True):
        writer.add_outline_item(text, at + one.get_destination_page_number(entry), parent=parent)


def book(root: Path, output: Path) -> Path:
    """Print the book of ``root`` to ``output``, whole or not at all."""
    folder, parts = root / "_build" / "html", contents(root)
    missing = [name for _, names in parts for name in names if not (folder / f"{name}.html").is_file()]
    if missing:
        sys.exit(f"The book is not built, or not to its end: {missing[0]}.html is missing; run make book first.")
    with chromium() as browser:
        writer = join(browser, folder, parts)
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    writer.add_metadata({"/Title": settings["title"], "/Author": settings["author"]})
    writer.root_object[NameObject("/PageMode")] = NameObject("/UseOutlines")
    writer.root_object[NameObject("/Lang")] = TextStringObject("en")
    writer.compress_identical_objects(remove_duplicates=True, remove_unreferenced=True)
    part = output.with_suffix(".part")
    with open(part, "wb") as file:
        writer.write(file)
    os.replace(part, output)
    return output


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "_build" / "snnbook.pdf")
    output = book(ROOT, parser.parse_args(arguments).output)
    print(f"{output.name}: {len(PdfReader(output).pages)} pages, {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
