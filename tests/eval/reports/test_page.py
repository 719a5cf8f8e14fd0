"""The data of the report page, and that nothing in it can run; test_page_in_browser.py opens it in a browser."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_irl.eval.reports.page import balanced, write_report
from tests.helpers.traces import scored_row

HOSTILE = "</script><script>document.title='x'</script><img src=x onerror=\"document.title='x'\"><!--<script>"
PNG = b"\x89PNG\r\n\x1a\nnot really a picture"
Write = Callable[..., Path]


@pytest.fixture
def page(tmp_path: Path) -> Write:
    """Writes a report and returns its path."""

    def write(
        traces: list[dict[str, Any]],
        metrics: dict[str, Any] | None = None,
        images: list[tuple[str, Path]] | None = None,
    ) -> Path:
        path = tmp_path / "out" / "report.html"
        write_report(path, "A run", metrics or {}, traces, images or [])
        return path

    return write


def data_of(path: Path) -> dict[str, Any]:
    """The JSON data inside the page."""
    block = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL)
    assert block is not None
    found: dict[str, Any] = json.loads(block.group(1))
    return found


def test_model_text_cannot_leave_the_data_block(page: Write) -> None:
    hostile = scored_row(0, completion=HOSTILE, question=HOSTILE, id=HOSTILE, tokens=None, answer=HOSTILE)
    metrics = {"supervision": HOSTILE, "pass@1": None, "pass@1/low": None, "pass@1/note": HOSTILE}
    path = page([hostile, scored_row(1, tokens=[HOSTILE], token_rewards=[1.0])], metrics)
    html = path.read_text()
    assert len(re.findall(r"<script", html)) == len(re.findall(r"</script", html)) == 2
    assert "<img" not in html
    assert "<!--" not in html
    assert "".join(data_of(path)["traces"][0]["pieces"]) == HOSTILE
    assert data_of(path)["traces"][1]["pieces"] == [HOSTILE]


def test_page_never_parses_text_as_html(page: Write) -> None:
    html = page([scored_row(0)]).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|DOMParser", html)


def test_page_is_self_contained(page: Write, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    path = page([scored_row(0)], images=[("A picture", tmp_path / "a.png")])
    assert not re.search(r"https?://|(src|href)\s*=\s*[\"'](?!data:)|url\(|@import", path.read_text())
    (image,) = data_of(path)["images"]
    assert image["caption"] == "A picture"
    assert base64.b64decode(image["png"]) == PNG


def test_page_has_all_traces_in_order(page: Write) -> None:
    views = data_of(page([scored_row(i) for i in range(250)]))["traces"]
    assert [view["id"] for view in views] == [f"problem-{i}" for i in range(250)]
    assert [view["score"] for view in views] == [i / 10 for i in range(250)]
    assert ["".join(view["pieces"]) for view in views] == [scored_row(i)["completion"] for i in range(250)]


def test_steps_have_token_ranges_scores_and_marks(page: Write) -> None:
    right, wrong = data_of(page([scored_row(0), scored_row(1)]))["traces"]
    assert "wrong" not in right
    assert wrong["wrong"] == 2
    shown = ["".join(wrong["pieces"][start:end]).strip() for start, end, _ in wrong["steps"]]
    assert shown[:2] == ["2 + 2 = 4", "4 * 1 = 13"]
    rewards = scored_row(1)["token_rewards"]
    for start, end, score in wrong["steps"]:
        assert score == pytest.approx(np.mean(rewards[start:end]), rel=1e-4)
    assert wrong["guess"] == 1  # rewards rise from token to token


def test_steps_are_scored_with_the_chosen_step_score(page: Write) -> None:
    how = {"choice/reward/step_score/natural": "min", "choice/reward/step_score/planted": "drop"}
    natural, planted = data_of(page([scored_row(1), scored_row(1, planted="operator_flip")], how))["traces"]
    rewards = scored_row(1)["token_rewards"]
    start, end, score = natural["steps"][0]
    assert score == pytest.approx(min(rewards[start:end]), rel=1e-4)
    assert planted["steps"][0][2] == pytest.approx(np.mean(rewards[start:end]) - np.mean(rewards), rel=1e-4)
    assert planted["planted"] == "operator_flip"


def test_traces_of_other_programs_need_only_text(page: Write) -> None:
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
    assert "".join(plain["pieces"]) == "Because."
    assert "rewards" not in plain
    assert "correct" not in plain
    assert labelled["question"] == "Asked"
    assert labelled["wrong"] == 2
    first, end, _ = labelled["steps"][1]
    assert "".join(labelled["pieces"][first:end]) == "Two\nlines."
    assert "".join(labelled["pieces"]) == "One.\n\nTwo\nlines.\n\nThree."


def test_wrong_step_missing_from_the_text_is_named_but_not_marked(page: Write) -> None:
    (view,) = data_of(page([scored_row(1, steps=["2 + 2 = 4", "elsewhere"])]))["traces"]
    assert "wrong" not in view
    assert view["wrong_text"] == "elsewhere"


def test_undefined_metrics_come_with_their_reason(page: Write) -> None:
    metrics = {"n_rerank": 2, "n_planted": 0, "n_natural": 0}
    metrics |= {"reward/auroc": None, "reward/auroc/note": "undefined: all right", "random/auroc": 0.5}
    metrics |= {"reward_minus_random/auroc": 0.2, "reward_minus_random/auroc/verdict": "better"}
    questions = {q["question"]: q["tables"] for q in data_of(page([scored_row(0)], metrics))["questions"]}
    shown = questions["Which samples are right?"][0]
    rows = {row["method"]: row for row in shown["rows"]}
    assert rows["reward"]["cells"][0] == {"value": None, "note": "undefined: all right"}
    assert rows["random"]["cells"][0] == {"value": 0.5}
    assert rows["random"]["differences"][0] == {"value": 0.2, "verdict": "better"}


def test_non_finite_numbers_become_null(page: Write) -> None:
    rewards = [float("nan"), float("inf"), np.float32(0.25)]
    path = page([scored_row(0, tokens=["a", "b", "c"], token_rewards=rewards, score=float("nan"))])
    (view,) = data_of(path)["traces"]
    assert view["rewards"] == [None, None, 0.25]
    assert "score" not in view


def test_tokens_and_rewards_must_have_equal_lengths(page: Write) -> None:
    with pytest.raises(ValueError, match=r"problem-0.*2 tokens, 1 token rewards"):
        page([scored_row(0, tokens=["a", "b"], token_rewards=[1.0])])


def test_report_shows_right_and_wrong_traces_in_equal_numbers() -> None:
    rows = [{"correct": number < 2} for number in range(10)]
    assert sum(row["correct"] for row in balanced(rows, 4, 0)) == 2
    assert sum(row["correct"] for row in balanced(rows, 8, 0)) == 2
    assert len(balanced(rows, 8, 0)) == 8
    assert balanced(rows, 0, 0) == []
