"""A page in a real browser, and what it did that it should not."""

from dataclasses import dataclass, field

from playwright.sync_api import Page

from storage.place import Place

CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

PAINTED = """() => [...document.querySelectorAll('img')].map((one) => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [one.naturalWidth, one.naturalHeight];
  if (!one.naturalWidth) return 0;
  const context = canvas.getContext('2d');
  context.drawImage(one, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
})"""
"""Different colors in each picture; 0 for one that was not loaded."""


@dataclass
class Watched:
    """A page, and what it did that it should not."""

    page: Page
    """The page."""
    errors: list[str] = field(default_factory=list)
    """Messages of its console and defects of its script."""
    requests: list[str] = field(default_factory=list)
    """What it asked for besides its own file and its pictures."""

    def open(self, path: Place) -> Page:
        """Open a file and watch it."""
        own = path.as_uri()
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url, own))
        self.page.goto(own)
        return self.page

    def _asked(self, url: str, own: str) -> None:
        if url != own and not url.startswith(("data:image/", "blob:")):
            self.requests.append(url)
