"""Check a built site: every internal link and anchor leads somewhere, and no page loads anything from elsewhere.

python check_site.py _build/html
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADING = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """Anchors of a page, what it links to and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.nameless: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what one element says."""
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[key] for key in ("id", "name") if named.get(key)}
        if tag == "a" and named.get("href"):
            self.links.add(named["href"])
        elif tag == "link" and "stylesheet" in named.get("rel", ""):
            self.loads.add(named["href"])
        elif tag in LOADING and named.get(LOADING[tag]):
            self.loads.add(named[LOADING[tag]])
        if tag == "img" and "alt" not in named:  # an empty one says that the picture is an ornament
            self.nameless.append(named.get("src", ""))


def problems(site: Path) -> list[str]:
    """What is wrong with a site, a line each.

    Parameters
    ----------
    site : Path
        Folder of HTML pages.

    Returns
    -------
    list of str
    """
    # what themes put into _static may end in .html and be a template
    files = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in files}
    if not pages:
        return [f"{site} holds no page: build the site first"]
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for link in sorted(page.links | page.loads):
            parts = urlsplit(link)
            if parts.scheme in ("mailto", "data", "javascript") or (parts.netloc and link in page.links):
                continue
            if parts.netloc:
                found.append(f"{name}: loads {link} from the network")
                continue
            file, anchor = urldefrag(link)
            target = (path.parent / unquote(urlsplit(file).path)).resolve() if urlsplit(file).path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                found.append(f"{name}: {link} leads nowhere")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                found.append(f"{name}: {link} names an anchor that is not there")
        found += [f"{name}: the image {source} has no alt text" for source in page.nameless]
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines = problems(Path(sys.argv[1]))
    print("\n".join(lines) or f"{sys.argv[1]}: every internal link leads somewhere, nothing is loaded from elsewhere")
    sys.exit(1 if lines else 0)
