"""Headless Chromium for the pages' tests."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage"
)


class Browser:
    """A Chromium of which every test may ask what a page wrote to its console and asked of the network."""

    def __init__(self, profile: Path) -> None:
        """Skips the test where Chromium or its driver is missing, unless REQUIRE_BROWSER=1, which fails it."""
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        program, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not program or not driver:
            told = "no chromium with chromedriver here: apt-get install chromium chromium-driver"
            assert os.environ.get("REQUIRE_BROWSER") != "1", told
            pytest.skip(told)
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """Load a page in a window of this size, and forget what the pages before it have said."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.cdp("Emulation.setEmulatedMedia", {"features": features, "media": media})
        self.driver.get("about:blank")
        self.said(), self.asked()
        self.driver.get(page.as_uri())

    def said(self) -> list[str]:
        """What has been written to the console since the last call, errors of any kind included."""
        # The log arrives in order and late: whatever was written before this mark has come when the mark has.
        mark, lines, deadline = f"mark {time.monotonic_ns()}", list[str](), time.monotonic() + 30
        self.js("console.info(arguments[0])", mark)
        while not any(mark in line for line in lines):
            assert time.monotonic() < deadline, "the browser's log has ended"
            lines += [entry["message"] for entry in self.driver.get_log("browser")]
        return [line for line in lines if mark not in line]

    def asked(self) -> list[str]:
        """The addresses asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, options: dict[str, Any]) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, options)

    def one(self, selector: str) -> Any:
        """The first element."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """All elements."""
        return self.driver.find_elements("css selector", selector)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile, closed at the end."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.driver.quit()
