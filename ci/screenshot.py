"""A picture of an HTML report for the documentation, by the Chromium that tests use.

usage: python ci/screenshot.py REPORT.html OUT.png [--dark] [--phone] [--at ID] [--height PIXELS]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from llamapatch.errors import ExitCode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--phone", action="store_true")
    parser.add_argument("--at", default="", metavar="ID", help="the section that is shown first")
    parser.add_argument("--height", type=int, default=1400)
    asked = parser.parse_args()
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        print("error: chromium or chromedriver is missing (apt install chromium chromium-driver).", file=sys.stderr)
        return ExitCode.ERROR
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking"):
        options.add_argument(f"--{word}")
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        size = {"width": 360 if asked.phone else 1120, "height": asked.height}
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": 1, "mobile": asked.phone}
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if asked.dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(asked.report.resolve().as_uri())
        if asked.at:
            browser.execute_script(
                "document.documentElement.style.scrollBehavior = 'auto';"
                "document.getElementById(arguments[0]).scrollIntoView()",
                asked.at,
            )
        browser.save_screenshot(str(asked.out))
    finally:
        browser.quit()
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
