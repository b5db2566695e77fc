from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pointwise.cloud.scan import Scan

DATA = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture
def room() -> Scan:
    """A box of 4 × 3 × 2.5 with everything a scan can carry, far from the origin."""
    rng = np.random.default_rng(7)
    floor = rng.random((900, 3)) * (4, 3, 0)
    wall = rng.random((500, 3)) * (4, 0, 2.5) + (0, 3, 0)
    chair = rng.random((90, 3)) * (0.5, 0.5, 0.9) + (1, 1, 0)
    ceiling = rng.random((600, 3)) * (4, 3, 0) + (0, 0, 2.5)
    unknown = rng.random((10, 3)) * (4, 3, 2.5)
    points = np.concatenate([floor, wall, chair, ceiling, unknown]) + (451_000, 5_411_000, 120)
    return Scan(
        points=points,
        labels=np.repeat([1, 2, 8, 0, -1], [900, 500, 90, 600, 10]),
        classes={0: "ceiling", 1: "floor", 2: "wall", 8: "chair"},
        fields={
            "color": rng.integers(1, 256, (len(points), 3)).astype(np.uint8),
            "intensity": rng.random(len(points)).astype(np.float32) * 4000,
        },
        name="room 12",
    )


@pytest.fixture
def town() -> Scan:
    """A real aerial scan with six classes."""
    from pointwise.cloud.files import read_scan

    path = DATA / "las/town_6_classes.las"
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    return read_scan(path)


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright, of the dev extra"
    )
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium here to open the page in")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def explain_file(tmp_path_factory) -> Path:
    """The page that explains convolutions, written once."""
    from pointwise.report.explain import write_page

    path = tmp_path_factory.mktemp("explain") / "explain.html"
    write_page(path)
    return path


@pytest.fixture
def open_explain(chromium, explain_file):
    """Opens the page, at 1280 × 800 unless told; fails if it raises an error or asks for a file."""
    contexts, wrong = [], []

    def call(fragment: str = "", width: int = 1280, height: int = 800, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        address = explain_file.as_uri()
        page.on(
            "request",
            lambda asked: asked.url.startswith((address, "data:")) or wrong.append(asked.url),
        )
        page.goto(address + fragment)
        return page

    yield call
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="session")
def explain_plans(chromium, explain_file):
    """(kind, settings, the page's plan) for a wide table of settings; tests only read it."""
    from explain_pages import PLAN, cloud_table, image_table

    page = chromium.new_page()
    page.goto(explain_file.as_uri())
    table = [*image_table(), *cloud_table()]
    found = [(kind, given, page.evaluate(PLAN, [kind, given])) for kind, given in table]
    page.close()
    return found
