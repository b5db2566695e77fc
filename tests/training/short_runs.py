"""Runs of a second or so: four scenes or clouds, and how the tests train on them."""

from __future__ import annotations

from pathlib import Path

import torch
from toys import cloud, scene

from pointwise.training import data as training_data
from pointwise.training.plan import plan
from pointwise.training.run import Run
from pointwise.training.sources import Data
from pointwise.training.train import Settings
from pointwise.training.train import train as train_on

SCENES = Data("segmentation", [scene(0), scene(1)], [scene(2)], [scene(3)])
CLOUDS = Data(
    "classification",
    [cloud(label, i) for label in (0, 1) for i in range(8)],
    [cloud(label, i) for label in (0, 1) for i in range(8, 12)],
    [cloud(label, i) for label in (0, 1) for i in range(12, 20)],
)


def new_run(data: Data = SCENES) -> Run:
    torch.manual_seed(0)
    network = "TinyPoints" if data.task == "segmentation" else "TinyClouds"
    return plan(data, network=network, block=6.0, cell_size=0.5)


def train(run: Run, data: Data, folder: Path, settings: Settings, **more) -> float:
    own = {name: more.pop(name) for name in ("augmentation", "batch") if name in more}
    feed = training_data.feed(run.recipe, data.train, data.validation, **own)
    return train_on(run, feed, folder, settings, **more)
