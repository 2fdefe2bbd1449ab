"""Rate an answer in Open WebUI's own page, in a browser.

A program of its own, for the Python of Open WebUI's environment, which has playwright. It reads
what to do as JSON: url, token, chat, comment, browser, and the file for a picture of the end.
"""

import json
import sys
from typing import Any

from playwright.sync_api import Page, sync_playwright

_ARGUMENTS = ("--no-sandbox", "--disable-background-networking")
_MILLISECONDS = 60_000


def rate(page: Page, url: str, chat: str, comment: str) -> None:
    """Click the thumb that is down, say why, and save it."""
    page.goto(f"{url}/c/{chat}")
    page.get_by_role("button", name="Bad Response").click()
    page.get_by_role("button", name="Not factually correct").click()
    page.get_by_placeholder("Feel free to add specific details").fill(comment)
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Thanks for your feedback!").first.wait_for()


def main(told: dict[str, Any]) -> None:
    """Do it as the user of this token."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=told["browser"], args=_ARGUMENTS)
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(_MILLISECONDS)
        page.add_init_script(f"localStorage.setItem('token', {json.dumps(told['token'])})")
        try:
            rate(page, told["url"], told["chat"], told["comment"])
        finally:
            page.screenshot(path=told["picture"])
            browser.close()


if __name__ == "__main__":
    main(json.load(sys.stdin))
