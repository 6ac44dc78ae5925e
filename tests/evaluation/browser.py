"""Open a page in headless Chromium and say what is wrong with it.

Speaks the DevTools protocol over a pipe (``--remote-debugging-pipe``: JSON ended by a zero
byte, on the child's file descriptors 3 and 4), so it needs no port and no further package.
"""

import base64
import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
"""Goes beside the marker `browser`."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Puts the two ends of the pipes on 3 and 4, whatever their numbers are here.
_LAUNCHER = """
import os, sys
read, write = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
while min(read, write) < 5:
    read, write = os.dup(read), os.dup(write)
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
# Outermost pictures with their place on the page, and every address to load from that the page
# names: an icon, say, may be asked for only after the page has been looked at.
_SURVEY = r"""
(() => {
  const pictures = [...document.querySelectorAll('img, svg')]
    .filter(node => !node.parentElement.closest('svg'))
    .map(node => {
      const box = node.getBoundingClientRect();
      const name = node.alt || node.closest('[id]')?.id || node.tagName;
      const broken = node.tagName === 'IMG' && !(node.complete && node.naturalWidth);
      return {name, broken, x: box.x + scrollX, y: box.y + scrollY,
              width: box.width, height: box.height};
    });
  const root = document.documentElement;
  const named = [...document.querySelectorAll('[src], [srcset], link[href], object[data]')]
    .map(node => node.src || node.srcset || node.href || node.data);
  const styles = [...document.querySelectorAll('style, [style]')]
    .flatMap(node => (node.textContent + node.getAttribute('style'))
      .match(/(?<=url\(["']?|@import ["'])[^"')]+/g) || []);
  return {pictures, named: [...named, ...styles], width: root.scrollWidth,
          height: root.scrollHeight, viewport: root.clientWidth};
})()
"""
_EMPTY = 0.002  # share of pixels that are not background


@dataclass(frozen=True)
class Inspection:
    """What a page did and showed.

    Attributes:
        console: errors and warnings on the console, uncaught exceptions among them.
        requests: addresses asked for or named to load from, other than the page itself and
            data: URLs.
        ink: share of pixels that are not background, for each picture by name and place.
        overflow: pixels by which the page is wider than the window.
        screenshot: the whole page.
    """

    console: list[str]
    requests: list[str]
    ink: dict[str, float]
    overflow: int
    screenshot: Image.Image

    def problems(self) -> list[str]:
        found = [f"console: {message}" for message in self.console]
        found += [f"external request: {url}" for url in self.requests]
        found += [f"empty picture: {name}" for name, ink in self.ink.items() if ink < _EMPTY]
        if not self.ink:
            found.append("no picture at all")
        if self.overflow > 0:
            found.append(f"page is {self.overflow} pixels wider than the window")
        return found


class _DevTools:
    """One Chromium with one page; events are kept, answers are returned."""

    def __init__(self, profile: Path, width: int) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _LAUNCHER, str(commands), str(answers), CHROMIUM),
                *_FLAGS,
                f"--user-data-dir={profile}",
                f"--window-size={width},1000",
                "about:blank",
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._received = b""
        self._number = 0
        self._session = None
        self.events = []

    def attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.call(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )["sessionId"]

    def call(self, method: str, **params: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        while not any(known.get("method") == event for known in self.events):
            self.events.append(self._receive())

    def _receive(self, timeout: float = 60.0) -> dict:
        deadline = time.monotonic() + timeout
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            data = os.read(self._answers, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("Chromium did not answer")
            self._received += data
        message, self._received = self._received.split(b"\0", 1)
        return json.loads(message)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)


def inspect_page(page: Path, profile: Path, *, width: int = 1200) -> Inspection:
    """Open a page from disk with a fresh profile and look at it."""
    address = page.resolve().as_uri()
    tools = _DevTools(profile, width)
    try:
        tools.attach()
        for domain in ("Runtime", "Log", "Network", "Page"):
            tools.call(f"{domain}.enable")
        tools.call("Page.navigate", url=address)
        tools.wait_for("Page.loadEventFired")
        survey = _evaluate(tools, _SURVEY)
        # Requests and errors of timers that the page has set up.
        _evaluate(tools, "new Promise(done => setTimeout(() => done(true), 200))")
        shot = tools.call(
            "Page.captureScreenshot",
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": width, "height": survey["height"], "scale": 1},
        )
    finally:
        tools.close()
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    return Inspection(
        console=[message for event in tools.events if (message := _complaint(event))],
        requests=sorted(
            url
            for url in {*filter(None, map(_requested, tools.events)), *survey["named"]}
            if not url.startswith(("data:", "#")) and url.split("#")[0] != address
        ),
        ink={
            f"{index}: {picture['name'][:40]}": _ink(image, picture)
            for index, picture in enumerate(survey["pictures"])
        },
        overflow=survey["width"] - survey["viewport"],
        screenshot=image,
    )


def _evaluate(tools: _DevTools, expression: str) -> dict:
    answer = tools.call(
        "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
    )
    return answer["result"]["value"]


def _complaint(event: dict) -> str | None:
    method, params = event.get("method"), event.get("params", {})
    if method == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        return details.get("exception", {}).get("description", details["text"])
    if method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
        return " ".join(str(part.get("value", part)) for part in params["args"])
    if method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
        return f"{params['entry']['text']} {params['entry'].get('url', '')}"
    return None


def _requested(event: dict) -> str | None:
    if event.get("method") != "Network.requestWillBeSent":
        return None
    return event["params"]["request"]["url"]


def _ink(image: Image.Image, picture: dict) -> float:
    if picture["broken"] or min(picture["width"], picture["height"]) < 1:
        return 0.0
    left, top = int(picture["x"]) + 1, int(picture["y"]) + 1
    right = int(picture["x"] + picture["width"]) - 1
    bottom = int(picture["y"] + picture["height"]) - 1
    pixels = np.asarray(image.crop((left, top, right, bottom)), dtype=np.int64)
    _, counts = np.unique(pixels @ [1 << 16, 1 << 8, 1], return_counts=True)
    return float(1.0 - counts.max() / counts.sum())
