"""A headless Chromium, driven through its DevTools protocol over two pipes: nothing beside Python's library is needed."""
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time


class BrowserError(Exception):
    """The browser does not do what it was asked for."""


def find():
    """The path of a Chromium; None where there is none."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One window; use it in a `with` statement."""

    def __init__(self, program):
        self._profile = tempfile.TemporaryDirectory()
        to_browser, self._in = os.pipe()
        self._out, from_browser = os.pipe()
        arguments = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
            f"--user-data-dir={self._profile.name}", "--no-first-run", "--disable-background-networking", "about:blank",
        ]

        def place():
            # The browser reads from descriptor 3 and writes to 4.
            reading, writing = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            arguments, pass_fds=(3, 4, to_browser, from_browser), preexec_fn=place, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self._rest = b""
        self._number = 0
        self.events = []
        targets = self._call("Target.getTargets", session=None)["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = None
        self._session = self._call("Target.attachToTarget", session=None, targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("Browser.close", session=None)
            self._process.wait(10)
        except (BrowserError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def _receive(self, deadline):
        while b"\0" not in self._rest:
            if not select.select([self._out], [], [], max(0, deadline - time.monotonic()))[0]:
                raise BrowserError("the browser does not answer")
            block = os.read(self._out, 1 << 20)
            if not block:
                raise BrowserError("the browser has ended")
            self._rest += block
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _call(self, method, *, session, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._in, data):]
        deadline = time.monotonic() + 300
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def call(self, method, **parameters):
        """Calls a method of the page."""
        return self._call(method, session=self._session, **parameters)

    def _processor_seconds(self):
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def open(self, path):
        """Opens a file and waits until it is loaded; gives the seconds of its thread that it took, whatever else the machine
        does."""
        self.events.clear()
        self.call("Performance.disable")
        self.call("Performance.enable", timeDomain="threadTicks")
        before = self._processor_seconds()
        start = time.monotonic()
        self.call("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive(start + 300))
        # The layout is done when its result can be asked for.
        self.evaluate("document.body.offsetHeight")
        after = self._processor_seconds()
        return after - before if after >= before else after

    def view(self, width, height=900, scheme="light", media=""):
        """Sets the size of the window and what the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call(
            "Emulation.setEmulatedMedia", media=media,
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ])

    def evaluate(self, expression):
        """The value of an expression of JavaScript, as JSON."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(str(result["exceptionDetails"].get("exception", {}).get("description"))[:500])
        return result["result"].get("value")

    def picture(self, path, whole=True):
        """Writes what is seen, or the whole page, as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def paper(self, path):
        """Writes the page as it would be printed, as a PDF file."""
        data = self.call("Page.printToPDF", printBackground=True)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
