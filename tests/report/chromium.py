"""A page in headless Chromium at a phone's width and at a desktop's: what is visible, what overflows, how formulas lie."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--hide-scrollbars",
    "--allow-file-access-from-files",  # the outer page reads the frames
)
PHONE, DESKTOP = 390, 1280

LOOK = """
function flat(math) {
  const box = e => e.getBoundingClientRect();
  const bad = [];
  if (box(math).width < 4 || box(math).height < 8) bad.push('empty');
  for (const f of math.querySelectorAll('mfrac'))
    if (box(f.children[0]).bottom > box(f.children[1]).top + 2) bad.push('fraction');
  for (const s of math.querySelectorAll('munder'))
    if (box(s.children[1]).top < box(s.children[0]).top + 4) bad.push('limits');
  for (const s of math.querySelectorAll('msub'))
    if (box(s.children[1]).bottom <= box(s.children[0]).bottom - 2) bad.push('subscript');
  for (const s of math.querySelectorAll('msup'))
    if (box(s.children[1]).top >= box(s.children[0]).top + 4) bad.push('superscript');
  return bad.length ? [bad.join(' ') + ': ' + math.textContent] : [];
}
function seen(doc) {
  const root = doc.documentElement;
  return {
    panels: [...doc.querySelectorAll('.nodes .node')].filter(n => n.offsetHeight > 0).map(n => n.id),
    overflow: root.scrollWidth - root.clientWidth,
  };
}
function watch(doc, chosen) {
  const before = seen(doc);
  const link = doc.querySelector('.graph a[href="#' + chosen + '"]');
  link.focus();
  const focused = doc.activeElement === link;
  link.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true, view: doc.defaultView}));
  return new Promise(resolve => setTimeout(() => {
    const after = seen(doc);
    doc.getElementById('all').click();
    for (const d of doc.querySelectorAll('details')) d.open = true;
    const formulas = [...doc.querySelectorAll('math')];
    resolve({before, focused, after, all: seen(doc), formulas: formulas.length, bad: formulas.flatMap(flat)});
  }, 100));
}
addEventListener('load', async () => {
  const looks = [];
  for (const frame of document.querySelectorAll('iframe')) {
    const look = await watch(frame.contentDocument, frame.dataset.chosen);
    looks.push([frame.dataset.name, Number(frame.width), look]);
  }
  const result = document.createElement('script');
  result.type = 'application/json';
  result.id = 'result';
  result.textContent = JSON.stringify(looks);
  document.body.append(result);
});
"""


def looked_at(pages: Mapping[str, tuple[str, str]], folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """By page and width: what is seen at first, after a click, and with everything opened; which formulas lie wrong.

    Args:
        pages: by name, a page and the id of the node to click on.
        folder: where files can be put.

    Each page and width is a frame of one outer page, as a window of Chromium has a least width of its own. A console
    message is an AssertionError.
    """
    frames: list[str] = []
    for name, (page, chosen) in pages.items():
        inner = folder / f"{name}.html"
        inner.write_text(page, encoding="utf-8")
        frames += [
            f'<iframe data-name="{escape(name)}" data-chosen="{escape(chosen)}" width="{width}" height="800" '
            f'src="{inner.as_uri()}"></iframe>'
            for width in (PHONE, DESKTOP)
        ]
    outer = folder / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8">{"".join(frames)}<script>{LOOK}</script>', encoding="utf-8")
    done = chromium(folder, "--dump-dom", "--virtual-time-budget=30000", outer.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    (found,) = re.findall(r'<script type="application/json" id="result">(.*?)</script>', done.stdout, re.DOTALL)
    return {(name, width): look for name, width, look in json.loads(found)}


def screenshot(page: str, folder: Path, width: int, height: int) -> Path:
    """A picture of a page."""
    file, picture = folder / "page.html", folder / f"page-{width}.png"
    file.write_text(page, encoding="utf-8")
    chromium(folder, f"--screenshot={picture}", f"--window-size={width},{height}", file.as_uri())
    return picture


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Chromium with a profile of its own."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
