"""The search page in a real browser: type, filter, play, steer, upload, wander, by keys alone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, client: httpx.Client) -> Iterator[Any]:
    """An open page that must raise no error, break no policy and ask no other host."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.set_default_timeout(20_000)
    home, wrong = str(client.base_url).rstrip("/"), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Policy" in said.text else None)
    own = (f"{home}/", "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url))
    page.goto(home)
    yield page
    page.close()
    assert wrong == []


def type_query(page: Any, text: str) -> None:
    with page.expect_response("**/v1/search"):
        page.fill("#text", text)
        page.keyboard.press("Enter")
    page.wait_for_selector("#hits li")


def until(page: Any, holds: str) -> None:
    """Waits for a condition; `wait_for_function` would need what the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never came true: {holds}")


def test_typing_finds_and_says_how_it_understood(page: Any) -> None:
    type_query(page, "slow piano ballad")
    first = page.locator("#hits li").first
    playwright.expect(first.locator(".tag.matched")).to_have_text(["ballad"])
    playwright.expect(page.locator("#chips span").first).to_have_text("description")
    playwright.expect(page.locator("#hits li")).to_have_count(12)
    playwright.expect(page.locator("#make")).to_be_hidden()  # there is no model that makes sound
    page.click("#more")
    playwright.expect(page.locator("#hits li")).to_have_count(24)
    type_query(page, "similar to Cy Wren")
    playwright.expect(page.locator("#chips span").first).to_have_text("similar: Cy Wren")
    page.reload()
    playwright.expect(page.locator("#text")).to_have_value("similar to Cy Wren")
    playwright.expect(page.locator("#hits li")).to_have_count(12)


def test_a_slot_is_a_chip_that_can_be_removed_or_turned(page: Any) -> None:
    type_query(page, "ballad, no metal, before 2000")
    slots = page.locator("#slots .slot")
    playwright.expect(slots).to_contain_text(["ballad", "without metal", "year <= 1999"])
    with page.expect_response("**/v1/search") as removed:
        page.click("#slots button[aria-label='Remove: without metal']")
    assert removed.value.json()["query"]["exclude"] == []
    playwright.expect(page.locator("#text")).to_have_value("ballad, before 2000")
    with page.expect_response("**/v1/search") as turned:
        page.click("#slots button[aria-label='Invert: ballad']")
    answer = turned.value.json()
    assert [slot["term"] for slot in answer["query"]["exclude"]] == ["ballad"]
    assert answer["hits"]
    assert not any("ballad" in hit["tags"] for hit in answer["hits"])
    playwright.expect(slots.first).to_have_text("without ballad⇄×")


def test_facets_and_filters_narrow_down_and_can_be_taken_back(page: Any) -> None:
    type_query(page, "techno beat")
    page.locator("#facets button", has_text="odd").click()
    page.wait_for_selector("#chips button:has-text('only odd')")
    tags = page.locator("#hits li .words").all_inner_texts()
    assert tags
    assert all("odd" in text for text in tags)
    page.fill("#where", "year > 1999")
    with page.expect_response("**/v1/search") as answer:
        page.keyboard.press("Enter")
        page.locator("#where").blur()
    years = [hit["year"] for hit in answer.value.json()["hits"]]
    assert sorted(years) == list(range(2001, 2010, 2))
    page.fill("#where", "yeer > 1999")
    page.locator("#where").blur()
    playwright.expect(page.locator("#note")).to_contain_text("yeer")
    page.fill("#where", "")
    page.locator("#where").blur()
    page.click("#chips button:has-text('only odd')")
    playwright.expect(page.locator("#chips button")).to_have_count(0)


def test_a_hit_plays_from_where_it_fits_best(page: Any) -> None:
    type_query(page, "heavy metal guitars")
    hits = page.locator("#hits li")
    page.click("#hits li:first-child button.play")
    until(page, "audio.currentTime > 0.2")
    playwright.expect(page.locator("#player")).to_be_visible()
    playwright.expect(page.locator("#now-title")).to_have_text(
        hits.first.locator(".title").text_content()
    )
    best = hits.first.locator(".bar .best").evaluate("bar => parseFloat(bar.style.left)")
    assert best in (0, 50)
    began = page.evaluate("audio.currentTime")
    assert began >= best / 100 * 20
    hits.first.locator(".bar").click(position={"x": 500, "y": 9})
    until(page, "audio.currentTime > 12")
    page.click("#pause")
    assert page.evaluate("audio.paused")
    gone = page.locator("#hits li", has_text="Tune 1Bo Finch")
    gone.locator("button.play").click()
    playwright.expect(page.locator("#note")).to_contain_text("cannot be played")


def test_hits_steer_towards_and_away(page: Any) -> None:
    type_query(page, "slow piano ballad")
    with page.expect_request("**/v1/search") as towards:
        page.locator("#hits li").nth(1).locator("button[title='More like this']").click()
    [liked] = towards.value.post_data_json["like"]
    playwright.expect(page.locator("#chips button")).to_contain_text(["more like Tune"])
    with page.expect_request("**/v1/search") as away:
        page.locator("#hits li").nth(0).locator("button[title='Less like this']").click()
    assert away.value.post_data_json["like"] == [liked]
    assert len(away.value.post_data_json["unlike"]) == 1
    page.wait_for_selector("#chips button:has-text('less like')")
    with page.expect_request("**/v1/search") as again:
        page.click("#chips button:has-text('less like')")
    assert "unlike" not in again.value.post_data_json


def test_two_liked_tracks_make_a_playlist(page: Any) -> None:
    type_query(page, "slow piano ballad")
    for _ in range(2):
        with page.expect_response("**/v1/search"):
            page.locator("#hits li").first.locator("button[title='More like this']").click()
    with page.expect_download() as download:
        page.click("#chips button:has-text('playlist')")
    assert download.value.path().read_text().startswith("#EXTM3U")


def test_a_recording_is_dropped_or_chosen(page: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(32_000) / 7), 16_000, format="WAV")
    chosen = {"name": "mine.wav", "mimeType": "audio/wav", "buffer": file.getvalue()}
    page.set_input_files("#file", chosen)
    page.wait_for_selector("#chips button:has-text('sounds like mine.wav')")
    playwright.expect(page.locator("#hits li")).to_have_count(12)
    page.evaluate(
        """bytes => {
            const moved = new DataTransfer();
            moved.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
            const dropped = { dataTransfer: moved, cancelable: true };
            document.dispatchEvent(new DragEvent("drop", dropped));
        }""",
        list(file.getvalue()),
    )
    page.wait_for_selector("#chips button:has-text('sounds like dropped.wav')")
    page.set_input_files("#file", chosen | {"name": "no.wav", "buffer": b"no music"})
    playwright.expect(page.locator("#note")).to_contain_text("recording cannot be used")


def test_the_map_is_wandered_by_pointer_and_by_keys(page: Any) -> None:
    type_query(page, "techno beat")
    page.click("#show-map")
    page.wait_for_selector("#legend button")
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#map-name")).to_contain_text("Tune")
    before = page.locator("#map").screenshot()
    page.keyboard.press("+")
    assert page.locator("#map").screenshot() != before
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#player")).to_be_visible()
    with page.expect_request("**/v1/search") as asked:
        page.keyboard.press("m")
    assert len(asked.value.post_data_json["like"]) == 1


def test_keys_alone_are_enough(page: Any) -> None:
    type_query(page, "techno beat")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    playwright.expect(page.locator("#hits li").nth(1)).to_have_class("at")
    page.keyboard.press(" ")
    until(page, "!audio.paused")
    with page.expect_request("**/v1/search") as asked:
        page.keyboard.press("l")
    assert len(asked.value.post_data_json["unlike"]) == 1
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"


def test_a_narrow_page_does_not_scroll_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    type_query(page, "heavy metal guitars")
    page.click("#show-map")
    page.wait_for_selector("#legend button")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
