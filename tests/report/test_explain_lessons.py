"""The lessons: every page can be reached and answered, and its numbers are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import pointwise
from pointwise import costs

GUIDE = Path(__file__).parents[2] / "docs" / "explain.md"
ANSWERS = "LESSONS.map(({pages}) => pages.map(({answers}) => answers[0]))"


def numbers_by_the_library() -> dict[tuple[int, int], int]:
    """What is asked for as a number: (lesson, page), computed anew."""
    x, kernel = torch.randn(1, 8, 8), torch.randn(1, 1, 3, 3)
    ones = torch.ones(1, 8, 8)
    padded = F.pad(ones, (1, 1, 1, 1))
    reads = pointwise.conv2d(ones, torch.ones(1, 1, 3, 3), padding="same")  # outputs of a pixel
    strided = torch.zeros(1, 8, 8, requires_grad=True)
    pointwise.conv2d(strided, torch.ones(1, 1, 3, 3), stride=2, padding=1).sum().backward()
    standard = costs.convolution((12, 12), 3, 256, 5, padding=0)
    depthwise = costs.depthwise((12, 12), 3, 5, padding=0)
    mix = costs.pointwise((8, 8), 3, 256)
    return {
        (0, 0): pointwise.conv2d(x, torch.randn(1, 1, 5, 5)).shape[-1],
        (0, 1): int((padded[0, :3, :3] == 0).sum()),
        (0, 2): costs.convolution((8, 8), 4, 4, 3).parameters,
        (0, 3): pointwise.conv2d(x, kernel, stride=2, padding=1).shape[-1],
        (2, 0): 5 * 5 * 3,
        (2, 1): standard.multiply_adds,
        (2, 2): depthwise.multiply_adds,
        (2, 3): mix.multiply_adds,
        (2, 4): round(standard.multiply_adds / (depthwise.multiply_adds + mix.multiply_adds)),
        (2, 5): depthwise.parameters + mix.parameters,
        (3, 2): sum(p.numel() for p in pointwise.CellConv(2, 3, 0.25, bias=False).parameters()),
        (3, 3): 2 * 27 + 3 * 2,
        (4, 0): int(reads[0, 3, 3]),
        (4, 1): int(reads[0, 0, 0]),
        (4, 2): int(strided.grad[0, 2, 2]),
        (4, 3): pointwise.conv2d(x, kernel, padding="same").numel(),
    }


def test_the_numbers_in_the_answers_are_the_librarys(open_explain):
    answers = open_explain().evaluate(ANSWERS)
    expected = numbers_by_the_library()
    for number, pages in enumerate(answers):
        for page, answer in enumerate(pages):
            if re.fullmatch(r"(About )?[\d,]+( times)?|(\d+) × \3|\d+", answer):
                found = int(re.search(r"[\d,]+", answer).group().replace(",", ""))
                assert expected.pop((number, page), found) == found, (number, page)
    assert expected == {}


def answer(page, text: str) -> None:
    page.locator(f'#answers input[value="{text}"]').check(force=True)


def test_every_page_shows_what_it_speaks_of_and_takes_an_answer(open_explain):
    page = open_explain()
    titles = page.evaluate("LESSONS.map(({title}) => title)")
    assert len(titles) == 5
    for number, title in enumerate(titles):
        page.select_option("#lesson", title)
        pages = page.evaluate("number => LESSONS[number].pages.length", number)
        assert pages >= 4
        for at in range(pages):
            assert page.text_content("#lesson-page") == f"{at + 1} of {pages}"
            assert not page.locator("#problem").is_visible()
            wanted = page.evaluate("([n, p]) => LESSONS[n].pages[p]", [number, at])
            seen = page.evaluate("({...state.plan.settings, kind: state.kind, pass: state.pass})")
            for name, value in {**wanted["settings"], "kind": wanted["kind"]}.items():
                assert seen[name] == value, (title, at, name)
            assert seen["pass"] == wanted.get("pass", "forward")
            if "job" in wanted:
                assert page.input_value("#job") == wanted["job"]
            answers = [label.inner_text() for label in page.locator("#answers label").all()]
            assert sorted(answers) == sorted(wanted["answers"])
            assert len(set(answers)) == len(answers) >= 3
            answer(page, wanted["answers"][1])
            assert page.text_content("#verdict").startswith("Not this one.")
            answer(page, wanted["answers"][0])
            assert page.text_content("#verdict") == f"Right. {wanted['why']}"
            if at < pages - 1:
                page.click("#lesson-next")
        assert page.locator("#lesson-next").is_disabled()
        page.click("#lesson-back")
        assert page.text_content("#lesson-page") == f"{pages - 1} of {pages}"
    page.click("#lesson-end")
    assert not page.locator("#lesson-panel").is_visible()
    assert page.locator("#about").is_visible()


@pytest.mark.parametrize(("lesson", "page_number"), [(4, 0), (4, 1), (4, 2), (4, 3)])
def test_the_step_of_a_page_back_has_as_many_products_as_its_answer(
    open_explain, lesson, page_number
):
    page = open_explain()
    page.evaluate("([n, p]) => openLesson(n, p)", [lesson, page_number])
    answer = page.evaluate("([n, p]) => LESSONS[n].pages[p].answers[0]", [lesson, page_number])
    page.click("#numbers summary")
    page.wait_for_selector("#products tbody tr", state="attached")  # written when it has opened
    assert page.locator("#products tbody tr").count() == int(answer)


def test_the_right_answer_is_not_always_at_the_same_place(open_explain):
    places = open_explain().evaluate(
        "LESSONS.flatMap(({pages}, n) => pages.map(({answers}, p) =>"
        " shuffled(answers, n + p).indexOf(answers[0])))"
    )
    assert max(places.count(place) for place in set(places)) < 0.6 * len(places)


def test_the_links_in_the_guide_lead_to_the_first_pages_of_the_lessons(open_explain):
    links = re.findall(
        r"pages/explain\.html(#\S+lesson=[\d.]+)\)", GUIDE.read_text(encoding="utf-8")
    )
    assert len(links) == 5
    for number, link in enumerate(links):
        page = open_explain(link)
        assert page.evaluate("location.hash") == link  # all of it was understood
        page.evaluate("number => openLesson(number, 0)", number)
        assert page.evaluate("location.hash") == link


def test_a_lesson_by_keyboard(open_explain):
    page = open_explain()
    page.focus("#lesson")
    page.keyboard.press("ArrowDown")
    assert page.locator("#lesson-panel").is_visible()
    page.locator("#answers input").first.focus()
    page.keyboard.press("Space")
    assert page.text_content("#verdict")
    step = page.evaluate("state.step")
    page.keyboard.press("ArrowRight")  # the next answer, not the next step
    assert page.evaluate("state.step") == step
    page.focus("#lesson-next")
    page.keyboard.press("Enter")
    assert page.text_content("#lesson-page") == "2 of 5"
