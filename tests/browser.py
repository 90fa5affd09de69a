"""A page in headless chromium, and what a script at its end makes of it."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium")

# An open frame holds up the load event, which chromium's --dump-dom waits for.
START = r"""
document.body.appendChild(document.createElement("iframe")).contentDocument.open();
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
// Alone in the document, for --dump-dom cannot write lone surrogates.
const finish = (result) => {
  const text = JSON.stringify(result instanceof Error ? result.stack : result);
  document.head.replaceChildren();
  document.body.replaceChildren(document.createElement("pre"));
  document.body.firstChild.textContent = text.replace(/[^ -~]/g,
    (letter) => "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
};
"""


def browse(page: str, folder: Path, script: str, before: str = "") -> Any:
    """What the script returns, run at the end of the page; `before`: a script at its start."""
    end = f"<script>{START}; (async () => {{ {script} }})().then(finish, finish);</script></body>"
    head = f"<head><script>{before}</script>"
    path = folder / "page.html"
    path.write_text(page.replace("<head>", head, 1).replace("</body>", end), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files"]  # for frames
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    # Such as an image that is not found, or a policy that refuses one.
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    return json.loads(unescape(re.search("<pre>(.*)</pre>", done.stdout).group(1)))


def browse_frames(frames: Sequence[tuple[str, int]], folder: Path, measure: str) -> list[Any]:
    """What `measure`, a function of a document, returns for each page, path and width in pixels."""
    tags = [f'<iframe style="width:{w}px;border:0" src="{path}"></iframe>' for path, w in frames]
    script = f"""
    const frames = [...document.querySelectorAll("iframe[src]")];
    const loaded = (page) => page.URL !== "about:blank" && page.readyState === "complete";
    while (!frames.every((frame) => loaded(frame.contentDocument))) await wait(50);
    return frames.map((frame) => ({measure})(frame.contentDocument));
    """
    return browse(f"<head></head><body>{''.join(tags)}</body>", folder, script)
