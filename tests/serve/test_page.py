"""The page at `/` in a headless Chromium: shoppers, clicks that count, an item by its text."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.running import Running

pytestmark = [pytest.mark.ray, pytest.mark.browser]

playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def page(app: Running) -> "Iterator[playwright.Page]":
    if CHROMIUM is None:
        pytest.skip("SKIPPED LOUDLY: no chromium; install the package chromium")
    with playwright.sync_playwright() as drive:
        browser = drive.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.errors = []
        page.hosts = set()
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.hosts.add(request.url.split("/")[2]))
        page.set_default_timeout(15_000)
        page.goto(app.url)
        yield page
        browser.close()


def picture(page: "playwright.Page", name: str) -> None:
    """Keep a picture where RAY_REC_PICTURES says, for whoever wants to look."""
    if folder := os.environ.get("RAY_REC_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_a_shopper_looks_buys_and_adds(app: Running, page: "playwright.Page") -> None:
    expect = playwright.expect
    cards = page.locator("#cards > li")
    expect(cards).to_have_count(12)
    expect(page.locator("#version")).to_have_text(str(app.version()))
    assert len(page.locator("#request").inner_text()) == 32
    picture(page, "1-known")

    page.get_by_role("button", name="Invent one").click()
    expect(page.locator("#whom")).to_contain_text("guest-")
    expect(page.locator("#history")).to_contain_text("Nothing yet")
    request = page.locator("#request").inner_text()
    before = [card.get_attribute("data-item") for card in cards.all()]

    title = cards.nth(11).locator(".title").inner_text()
    cards.nth(11).get_by_role("button", name="Buy").click()
    expect(page.locator("#say")).to_contain_text("Bought")
    expect(page.locator("#history")).to_contain_text(title)
    assert page.locator("#request").inner_text() != request
    assert [card.get_attribute("data-item") for card in cards.all()] != before
    picture(page, "2-bought")

    page.get_by_label("Title").fill("smoky lapsang black leaves")
    page.get_by_label("Category").fill("tea")
    page.get_by_label("Price").fill("7.5")
    page.get_by_role("button", name="Add to the shop").click()
    expect(page.locator("#like")).to_contain_text("smoky lapsang")
    expect(page.locator("#similar")).to_contain_text("your item")
    expect(page.locator("#similar > li")).to_have_count(7)
    expect(page.locator("#rank")).to_contain_text("it is number")
    picture(page, "3-added")

    assert page.errors == []
    assert page.hosts == {app.url.removeprefix("http://")}


def test_what_goes_wrong_is_said(page: "playwright.Page") -> None:
    page.get_by_label("Or any id").fill("x" * 256)
    page.get_by_role("button", name="Show", exact=True).click()
    playwright.expect(page.locator("#whom")).to_contain_text("xxx")
    page.route("**/v1/recommendations", lambda route: route.fulfill(status=503, body="{}"))
    page.get_by_role("button", name="Invent one").click()
    playwright.expect(page.locator("#say.bad")).to_be_visible()
    page.unroute("**/v1/recommendations")
