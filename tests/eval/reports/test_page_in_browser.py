"""The report page in a browser: traces are found, sorted and opened, and hostile text does nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reasoning_irl.eval.reports.page import write_report
from reasoning_irl.text.trace import format_trace
from tests.helpers.traces import scored_row

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome")
ATTACK = "</script><script>document.title='x'</script><img src=x onerror=\"document.title='x'\">"
N_TRACES = 2000


def trace(index: int, **changes: Any) -> dict[str, Any]:
    """A row whose rewards and score depend on its index."""
    row = scored_row(index, score=(37 * index) % N_TRACES / 100, **changes)
    return row | {"token_rewards": [(7 * index + 3 * at) % 11 - 5.0 for at in range(len(row["tokens"]))]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    traces = [trace(0, id=ATTACK, question=ATTACK, completion=ATTACK, tokens=[ATTACK], steps=[])]
    traces += [trace(index) for index in range(1, N_TRACES)]
    metrics = {"supervision": ATTACK, "pass@1": 0.5, "pass@1/low": 0.4, "pass@1/high": 0.6}
    write_report(path, "A run", metrics, traces, [])
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "playwright.Browser", report: Path) -> Iterator["playwright.Page"]:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert errors == []


def listed(page: "playwright.Page") -> list[str]:
    """The ids of the listed traces, in order."""
    return [text.partition(",")[0] for text in page.locator("#list > details > summary .name").all_text_contents()]


def test_search_finds_traces_that_contain_the_text(page: "playwright.Page") -> None:
    assert "2,000 traces" in page.locator("#count").inner_text()
    page.locator("#search").fill("wHAT is QUESTION 1234?")
    playwright.expect(page.locator("#count")).to_contain_text("1 of 2,000 traces")
    assert listed(page) == ["problem-1234"]
    page.locator("#search").fill("no such text")
    playwright.expect(page.locator("#count")).to_contain_text("0 of 2,000 traces")
    assert listed(page) == []


def test_list_can_be_filtered_and_sorted(page: "playwright.Page") -> None:
    page.locator("#show").select_option("wrong")
    playwright.expect(page.locator("#count")).to_contain_text("1,000 of 2,000 traces")
    page.locator("#order").select_option("high")
    scores = {f"problem-{index}": trace(index)["score"] for index in range(1, N_TRACES, 2)}
    best = sorted(scores, key=lambda id: scores[id], reverse=True)
    page.locator("#more").click()
    found = listed(page)
    assert len(found) >= 50
    assert found == best[: len(found)]
    page.locator("#order").select_option("low")
    assert listed(page)[0] == best[-1]


def test_most_confidently_wrong_traces_can_come_first(page: "playwright.Page") -> None:
    page.locator("#show").select_option("wrong")
    page.locator("#order").select_option("odds")
    first = max(range(1, N_TRACES, 2), key=lambda index: trace(index)["score"])
    assert listed(page)[0] == f"problem-{first}"


def test_opened_trace_has_coloured_tokens_and_marked_steps(page: "playwright.Page") -> None:
    page.locator("#search").fill("question 7?")
    playwright.expect(page.locator("#count")).to_contain_text("1 of")
    assert page.locator(".heat").count() == 0  # tokens are drawn only for opened traces
    page.locator("#list summary").click()
    facts = page.locator("#list dl").inner_text().split("\n")
    assert facts[facts.index("Model's answer") + 1] == "13"
    assert facts[facts.index("Reference answer") + 1] == "12"
    heat = page.locator(".heat")
    assert format_trace("2 + 2 = 4\n4 * 7 = 13", "13").split("\n")[1] in heat.inner_text()
    wrong = heat.locator(".step.wrong")
    assert wrong.inner_text().strip() == "4 * 7 = 13"
    assert "first wrong step" in heat.inner_text()
    assert "step 2 of" in wrong.get_attribute("aria-label")
    assert "score" in wrong.get_attribute("aria-label")
    assert heat.locator(".step.guess").count() == 1
    colours = heat.locator("span.below, span.above").evaluate_all(
        "all => all.map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(colours)) > 3
    wrong.hover()
    assert "score" in page.locator(".readout").inner_text()


def test_page_can_be_used_by_keyboard_alone(page: "playwright.Page") -> None:
    page.keyboard.press("/")
    page.keyboard.type("question 15")
    page.keyboard.press("Enter")
    first, second = listed(page)[:2]
    focused = "document.activeElement.closest('details').querySelector('.name').textContent.split(',')[0]"
    assert page.evaluate(focused) == first
    page.keyboard.press("j")
    assert page.evaluate(focused) == second
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#list > details[open]")).to_have_count(1)
    page.keyboard.press("Tab")  # moves into the opened trace, to its steps
    assert page.evaluate("document.activeElement.className").startswith("step")
    assert "step 1 of" in page.locator(".readout").inner_text()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#list > details[open]")).to_have_count(0)
    page.keyboard.press("k")
    assert page.evaluate(focused) == first


def test_hostile_text_is_shown_and_does_nothing(page: "playwright.Page") -> None:
    first = page.locator("#list > details").first
    first.locator("summary").click()
    playwright.expect(first.locator(".heat")).to_contain_text(ATTACK)
    playwright.expect(first.locator("dd").first).to_contain_text(ATTACK)
    assert page.title() == "A run"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_list_grows_until_all_traces_are_listed(page: "playwright.Page") -> None:
    shown = len(listed(page))
    assert shown < N_TRACES
    while page.locator("#more").is_visible():
        page.evaluate("document.querySelector('#more').click()")
    assert len(listed(page)) == N_TRACES


@pytest.mark.parametrize("width", [390, 1280])
def test_first_screens_have_the_summary_and_the_traces(
    width: int, browser: "playwright.Browser", tmp_path: Path
) -> None:
    """Trap: tables that push the traces thousands of pixels down, and text that a phone clips."""
    metrics: dict[str, Any] = {"n_rerank": 8, "n_natural": 5, "n_planted": 0, "n_test_problems": 4, "n_samples": 8}
    for name in ("rerank@1|8", "auroc_within_prompt", "first_error_hit@1/natural"):
        for method in ("reward", "logprob", "reward_and_logprobs"):
            metrics |= {f"{method}/{name}": 0.75, f"{method}/{name}/low": 0.7, f"{method}/{name}/high": 0.8}
        metrics |= {f"reward_minus_logprob/{name}": 0.1, f"reward_minus_logprob/{name}/verdict": "better"}
    write_report(tmp_path / "report.html", "A run", metrics, [trace(index) for index in range(50)], [])
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    cards = page.locator(".card").all_inner_texts()
    assert [card.split("\n")[0] for card in cards] == [
        "Choosing one of 8 samples",
        "Ordering samples of a problem",
        "Finding the first wrong step",
    ]
    assert all("log-probability 0.750 ▲ +0.100 better" in card for card in cards)
    assert page.locator("#traces").bounding_box()["y"] < (900 if width > 1000 else 1300)
    links = page.locator("#contents a")
    assert links.first.inner_text() == "Traces"
    assert all(page.locator(link.get_attribute("href")).count() == 1 for link in links.all())
    # Only tables may be wider than the screen, and they scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") == width
    clipped = """[...document.querySelectorAll('h1, h2, h3, p, dd, dt, li, .card *')]
        .filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth).map(e => e.textContent)"""
    assert page.evaluate(clipped) == []
    page.close()
