"""A headless Chromium, where there is one: Debian's packages chromium and chromium-driver, driven through selenium."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--force-prefers-reduced-motion",
    "--disable-background-networking",
)


def first_found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def installed() -> tuple[str, str]:
    """Paths of a browser and its driver; on CI they are installed when missing. Skips, with the reason, without."""
    is_ci = bool(os.environ.get("CI")) and os.geteuid() == 0 and shutil.which("apt-get")
    if is_ci and not (first_found(BROWSERS) and first_found(DRIVERS)):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False, "timeout": 240}
        packages = ["chromium", "chromium-driver", "fonts-noto-core"]
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *packages], **quiet)
    browser, driver = first_found(BROWSERS), first_found(DRIVERS)
    if not browser or not driver:
        pytest.skip("no headless browser: install chromium and chromium-driver (apt-get), or run with CI=true as root")
    return browser, driver


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    """A selenium driver that records the console and every request."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, program = installed()
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = selenium.Chrome(options=options, service=selenium.ChromeService(program))
    yield started
    started.quit()
