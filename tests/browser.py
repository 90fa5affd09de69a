"""A page in headless chromium: what a script at its end makes of it, and real keys and clicks."""

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any, BinaryIO

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium")
KEY_CODES = {"Enter": 13, "Escape": 27}
KEY_CODES |= {f"Arrow{name}": 37 + k for k, name in enumerate(("Left", "Up", "Right", "Down"))}
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
MODIFIERS = {"Control": 2, "Shift": 8}

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


class Hands:
    """A person at a page: keys and clicks are the browser's own, by its DevTools protocol."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO):
        self.commands, self.answers = commands, answers  # unbuffered
        self.rest, self.count, self.session, self.errors = b"", 0, {}, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        command = {"id": self.count, "method": method, "params": params, **self.session}
        self.commands.write(json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                received = self.answers.read(1 << 20)
                assert received, "the browser is gone"
                self.rest += received
            message, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(message)
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(answer["params"])
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path) -> None:
        self.send("Page.navigate", url=path.as_uri())
        self.wait(f"location.href === {json.dumps(path.as_uri())}")

    def reload(self) -> None:
        self.see("window.before = true")
        self.send("Page.reload")
        self.wait("!window.before")

    def wait(self, condition: str) -> None:
        for _ in range(600):
            if self.see(f"document.readyState === 'complete' && {condition}"):
                self.see(PAINTED)  # before that, keys of a busy browser can get lost
                return
            time.sleep(0.05)
        raise TimeoutError(condition)

    def see(self, expression: str) -> Any:
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.send("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys such as "d", "Enter" or "Shift+ArrowDown"."""
        for each in keys:
            *held, key = each.split("+")
            event = {"key": key, "modifiers": sum(map(MODIFIERS.get, held))}
            event["windowsVirtualKeyCode"] = KEY_CODES.get(key) or ord(key.upper())
            text = "\r" if key == "Enter" else "" if key in KEY_CODES else key
            kind = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
            self.send("Input.dispatchKeyEvent", **event, **kind)
            self.send("Input.dispatchKeyEvent", **event, type="keyUp")

    def click(self, element: str, *held: str) -> None:
        """Click on the middle of what the expression gives."""
        x, y = self.see(f"""((element) => {{
          element.scrollIntoView({{ block: "center" }});
          const box = element.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }})({element})""")
        event = {"x": x, "y": y, "button": "left", "clickCount": 1}
        event["modifiers"] = sum(map(MODIFIERS.get, held))
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", **event, type=kind)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def photograph(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def hands_on(path: Path, folder: Path, width: int = 1200, height: int = 900) -> Iterator[Hands]:
    """Hands at the page of that file; `folder`: for the browser's own files."""
    pipes = [*os.pipe(), *os.pipe()]
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipes]  # none is 3 or 4
    for end in pipes:
        os.close(end)

    def connect() -> None:
        os.dup2(ends[0], 3)
        os.dup2(ends[3], 4)

    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    command += [f"--user-data-dir={folder / 'profile'}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen(command, preexec_fn=connect, close_fds=False, **quiet) as browser,
        os.fdopen(ends[1], "wb", 0) as commands,
        os.fdopen(ends[2], "rb", 0) as answers,
    ):
        os.close(ends[0])
        os.close(ends[3])
        try:
            hands = Hands(commands, answers)
            hands.size(width, height)
            hands.open(path)
            yield hands
            assert hands.errors == []
        finally:
            browser.terminate()
