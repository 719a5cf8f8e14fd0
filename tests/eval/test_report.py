"""The report page: what it holds, that nothing in it runs, and that a browser shows it."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from reasoning_irl.data.records import format_trace, step_spans
from reasoning_irl.eval.report import colour_scale, locate_step, write_report

HOSTILE = "</script><script>document.title='x'</script><img src=x onerror=\"document.title='x'\"><!--<script>"
PNG = b"\x89PNG\r\n\x1a\nnot really a picture"
CHROMIUM = shutil.which("chromium")


def trace(index, **changes):
    text = format_trace("2 + 2 = 4\n4 * 3 = 13", "13")
    tokens = re.findall(r"\s*\S", text)
    return {
        "id": f"problem-{index}",
        "question": f"What is question {index}?",
        "completion": text,
        "sample": 0,
        "answer": "12",
        "correct": index % 2 == 0,
        "steps": [text[slice(*span)] for span in step_spans(text)],
        "first_error_step": None if index % 2 == 0 else 2,
        "tokens": tokens,
        "token_rewards": np.linspace(-1, 1, len(tokens)).tolist(),
        "score": index / 10,
        "logprob": -3.25,
        "supervision": "demonstrations",
        **changes,
    }


@pytest.fixture
def page(tmp_path):
    """Write a report and return its path."""

    def write(traces, summary=(), images=()):
        path = tmp_path / "out" / "report.html"
        write_report(path, "A run", list(summary), traces, list(images))
        return path

    return write


def data_of(path):
    block = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(block.group(1))


def test_model_text_cannot_leave_the_data_block(page):
    hostile = trace(0, completion=HOSTILE, question=HOSTILE, id=HOSTILE, tokens=None, answer=HOSTILE)
    rows = [{"method": HOSTILE, "metric": "auroc", "value": 0.5, "note": HOSTILE}]
    path = page([hostile, trace(1, tokens=[HOSTILE], token_rewards=[1.0])], rows)
    html = path.read_text()
    assert len(re.findall(r"<script", html)) == len(re.findall(r"</script", html)) == 2
    assert "<img" not in html
    assert "<!--" not in html
    assert data_of(path)["traces"][0]["pieces"] == [HOSTILE]
    assert data_of(path)["traces"][1]["pieces"] == [HOSTILE]


def test_page_never_parses_text_as_markup(page):
    html = page([trace(0)]).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|DOMParser", html)


def test_page_is_self_contained(page, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    path = page([trace(0)], images=[("A picture", tmp_path / "a.png")])
    assert not re.search(r"https?://|(src|href)\s*=\s*[\"'](?!data:)|url\(|@import", path.read_text())
    (image,) = data_of(path)["images"]
    assert image["caption"] == "A picture"
    assert base64.b64decode(image["png"]) == PNG


def test_all_traces_are_there_in_order(page):
    views = data_of(page([trace(i) for i in range(250)]))["traces"]
    assert [view["id"] for view in views] == [f"problem-{i}" for i in range(250)]
    assert [view["score"] for view in views] == [i / 10 for i in range(250)]
    assert all("".join(view["pieces"]) == trace(0)["completion"] for view in views)


def test_first_wrong_step_is_marked_by_its_tokens(page):
    right, wrong = data_of(page([trace(0), trace(1)]))["traces"]
    assert right["wrong"] is None
    assert "".join(wrong["pieces"][slice(*wrong["wrong"])]).strip() == "4 * 3 = 13"


def test_trace_of_another_program_needs_only_its_text(page):
    plain, labelled = data_of(
        page(
            [
                {"question": "Why?", "completion": "Because.", "correct": None},
                {
                    "prompt": [{"role": "user", "content": "Asked"}],
                    "completion": "One.\n\nTwo\nlines.\n\nThree.",
                    "correct": False,
                    "steps": ["One.", "Two\nlines.", "Three."],
                    "first_error_step": 2,
                },
            ]
        )
    )["traces"]
    assert (plain["pieces"], plain["rewards"], plain["correct"]) == (["Because."], None, None)
    assert labelled["question"] == "Asked"
    assert labelled["pieces"] == ["One.\n\n", "Two\nlines.", "\n\nThree."]
    assert labelled["wrong"] == [1, 2]


def test_step_is_found_by_its_place_not_by_its_text():
    text = format_trace("4\na\n4", "a")  # "a" stands in the answer's tag too
    for step, (start, end) in enumerate(step_spans(text), start=1):
        assert locate_step(text, ["4", "a", "4", "a"], step) == (start, end)
    assert locate_step(text, ["4", "a", "4", "a"], 5) is None
    assert locate_step(text, ["4", "elsewhere"], 2) is None
    assert locate_step("So\n4\n\nSo\n4\n\n5", ["So\n4", "So\n4", "5"], 2) == (6, 10)


def test_numbers_that_json_lacks_become_empty(page):
    rewards = [float("nan"), float("inf"), np.float32(0.25)]
    path = page(
        [trace(0, tokens=["a", "b", "c"], token_rewards=rewards, score=float("nan"))],
        [{"method": "m", "metric": "auroc", "value": float("nan")}],
    )
    (view,) = data_of(path)["traces"]
    assert view["rewards"] == [None, None, 0.25]
    assert view["score"] is None
    assert data_of(path)["summary"] == [{"method": "m", "metric": "auroc", "value": None}]


def test_tokens_and_rewards_must_pair(page):
    with pytest.raises(ValueError, match=r"problem-0.*2 tokens, 1 token rewards"):
        page([trace(0, tokens=["a", "b"], token_rewards=[1.0])])


def test_colour_scale_is_symmetric_about_the_median_and_forgets_outliers():
    rewards = [*np.linspace(-1, 3, 401), 1e6]
    scale = colour_scale(rewards)
    assert scale["middle"] == pytest.approx(1.0, abs=0.02)
    assert scale["high"] - scale["middle"] == pytest.approx(2.0, abs=0.06)
    assert scale["middle"] - scale["low"] == pytest.approx(scale["high"] - scale["middle"])
    assert colour_scale([None, 2.0]) == {"low": 1.0, "middle": 2.0, "high": 3.0}
    assert colour_scale([]) == {"low": -1.0, "middle": 0.0, "high": 1.0}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed, so no browser can open the page")
def test_browser_lists_and_opens_traces(page, tmp_path):
    hostile = trace(0, completion=HOSTILE, tokens=[HOSTILE, "\n", "end"], token_rewards=[-1.0, 0.0, 1.0])
    rows = [{"method": "reward", "metric": "auroc", "value": 0.731, "low": 0.7, "high": 0.76}]
    path = page([hostile] + [trace(i) for i in range(1, 150)], rows)
    opened = path.with_name("opened.html")  # the same page, with its first two traces opened as by a reader
    opening = 'for (const i of [0, 1]) $("list").children[i].open = true;\n</script>\n</body>'
    opened.write_text(path.read_text().replace("</script>\n</body>", opening))
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            opened.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    dom = done.stdout
    shown = dom[: dom.index('<script id="data"')]
    assert "<title>A run</title>" in dom  # hostile text did not run
    assert "<img" not in shown
    assert "&lt;/script&gt;&lt;script&gt;document.title='x'" in shown
    assert shown.count("<details") == 100  # the first page of the list; the rest waits for a request
    assert "problem-99, sample 0" in shown
    assert "150 traces" in shown
    assert "0.700 to 0.760" in shown
    assert shown.count('class="heat"') == 2  # tokens are drawn for opened traces only
    assert re.search(r'<span title="reward −1 \(token 1 of 3\)" style="background: rgb\(239, 154, 74\);">', shown)
    assert "first wrong step" in shown
