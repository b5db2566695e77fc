"""The simulation of a campaign, where its answer is known beforehand."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign
from campaign import Place, Rates, Schedule, Survey

RATES = Rates("a toy", 1, read=1e-6, label=8e-6, write=1e-6, bytes=5.0, ready=0.0, task=0.0)
PLACE = Place(faster=1.0, replicas=1, link=math.inf, store=math.inf, lasts=math.inf, comes=60.0)


def schedule(durations, workers, rates=RATES, place=PLACE, seed=0) -> Schedule:
    made = Schedule(rates, place, workers, np.random.default_rng(seed))
    return made.run(np.asarray(durations, dtype=float), 100.0)


def test_tiles_go_to_who_is_free_first():
    found = schedule([5, 4, 3, 3, 3], workers=2)  # 5 + 3, 4 + 3 + 3
    assert (found.end, found.lost) == (110.0, 0)
    assert schedule([5, 4, 3, 3, 3], workers=1).end == 118.0
    assert schedule([5, 4], workers=8, rates=replace(RATES, ready=2.0)).end == 107.0


def test_the_head_gives_out_one_task_after_the_other():
    found = schedule(np.zeros(1000), workers=64, rates=replace(RATES, task=0.01))
    assert found.end == pytest.approx(110.0)


def test_a_worker_that_is_lost_costs_its_tile_and_the_time_until_another_comes():
    place = replace(PLACE, lasts=1.0)
    found = schedule(np.full(200, 120.0), workers=4, place=place)
    assert found.lost > 0
    least = 100 + 200 * 120 / 4
    assert least < found.end < least + found.lost * (120 + place.comes)
    assert schedule(np.full(200, 120.0), workers=4, place=place, seed=0).end == found.end


def test_a_campaign_takes_what_its_tiles_take():
    survey = Survey(tiles=100, points=1e6, spread=0.0)
    # A second to look, nine to read with the neighbours, eight to label, one to write.
    found = campaign.campaign(survey, RATES, PLACE, workers=10)
    assert found.hours == pytest.approx(10 * (1 + 9 + 8 + 1) / 3600)
    assert found.busy == pytest.approx(1.0)
    assert found.fetched == pytest.approx(100 * 10 * 5e6)
    quick = campaign.campaign(survey, RATES, replace(PLACE, faster=8.0), workers=10)
    assert quick.hours == pytest.approx(10 * (1 + 9 + 1 + 1) / 3600)
    # 55 MB to move for each tile in all, at 5 MB/s for each worker: 11 s more.
    slow = campaign.campaign(survey, RATES, replace(PLACE, store=50e6), workers=10)
    assert slow.hours == pytest.approx(10 * (19 + 11) / 3600)
    assert slow.waiting == pytest.approx(11 / 30)
    shared = campaign.campaign(survey, RATES, replace(PLACE, link=20e6, replicas=4), workers=10)
    assert shared.hours == pytest.approx(slow.hours)


def test_the_command_prints_a_line_for_each_number_of_workers(tmp_path):
    measured = tmp_path / "campaign.json"
    measured.write_text(json.dumps({**asdict(RATES), "seconds": {"1": 2.0}}))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(
        campaign.app, ["simulate", str(measured), "--tiles", "50"]
    )
    assert result.exit_code == 0, result.output
    for workers in ("1", "2", "4", "16", "64", "256", "1,024"):
        assert f"\n  {workers} " in result.output
    assert max(map(len, result.output.splitlines())) <= 80
