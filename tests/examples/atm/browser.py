"""A real browser without a screen: Debian's Chromium, driven by Selenium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",  # it asks for nothing but what it is sent to
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,800",
)
INSTALL = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "chromium-driver"]


def find_programs() -> tuple[str, str]:
    """Return browser and driver, installed first where that is possible without asking anybody.

    Where only an administrator could, the test is skipped with the command to give.
    """
    driver = shutil.which("chromedriver")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if driver and browser:
        return browser, driver
    if shutil.which("apt-get") is None or os.getuid() != 0:
        pytest.skip(f"no Chromium with its driver here; as root: {' '.join(INSTALL)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], INSTALL):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)} failed: {done.stderr}"
    return "/usr/bin/chromium", "/usr/bin/chromedriver"


@contextmanager
def open_browser(folder: Path) -> Iterator[Chrome]:
    """Open a browser with a profile of its own in `folder`."""
    browser, driver = find_programs()
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()
