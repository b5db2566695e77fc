from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import scene

from pointwise.training.plan import plan
from pointwise.training.run import (
    Run,
    build_network,
    load_run,
    read_run,
    save_run,
    save_weights,
)
from pointwise.training.sources import Data


@pytest.fixture
def saved(tmp_path) -> tuple[Run, Path]:
    data = Data("segmentation", [scene(0)], [], [])
    run = plan(data, network="TinyPoints", options={"epochs": 3})
    save_run(run, tmp_path)
    save_weights(run, tmp_path)
    return run, tmp_path


def change(folder: Path, **changes) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_run_comes_back_as_it_was(saved):
    run, folder = saved
    again = load_run(folder)
    assert again.recipe == run.recipe
    assert again.arguments == run.arguments
    assert again.options == {"epochs": 3}
    assert not again.network.training
    for name, value in run.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value, rtol=0, atol=0)


def test_a_fresh_process_loads_it_without_lightning(saved):
    _, folder = saved
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import pointwise.networks, toys\n"
        "pointwise.networks.TinyPoints = toys.TinyPoints\n"
        "from pointwise.training.label import label_scan\n"
        "from pointwise.training.run import load_run\n"
        "codes = label_scan(load_run(sys.argv[1]), toys.scene(1))\n"
        "assert set(codes) <= {10, 20, 30} and len(codes) == 2000\n"
        "assert not {'lightning', 'torchmetrics', 'tensorboard'} & set(sys.modules)\n"
    )
    arguments = [sys.executable, "-c", code, str(folder), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_seed_decides_the_first_weights():
    data = Data("segmentation", [scene(0)], [], [])
    one, same, other = (
        plan(data, network="TinyPoints", seed=seed).network.state_dict()["layers.0.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run: it has no run.json"):
        load_run(tmp_path)


def test_an_unfinished_run(saved):
    _, folder = saved
    (folder / "weights.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights.pt yet; .*train --resume"):
        load_run(folder)


def test_no_json(saved):
    _, folder = saved
    (folder / "run.json").write_text('{"network": ')
    with pytest.raises(ValueError, match=r"run.json is broken: Expecting value"):
        read_run(folder)


def test_incomplete_json(saved):
    _, folder = saved
    (folder / "run.json").write_text('{"network": "TinyPoints"}')
    with pytest.raises(ValueError, match=r"run.json is broken: it has no 'recipe'"):
        read_run(folder)


def test_wrong_recipe(saved):
    _, folder = saved
    recipe = json.loads((folder / "run.json").read_text())["recipe"]
    change(folder, recipe={**recipe, "task": "painting"})
    with pytest.raises(ValueError, match="the task is 'painting', not one of segmentation"):
        read_run(folder)
    change(folder, recipe={**recipe, "colour": 1})
    with pytest.raises(ValueError, match=r"run.json is broken: .*'colour'"):
        read_run(folder)


@pytest.mark.parametrize("name", ["PointNet", "__file__"])
def test_unknown_network(saved, name):
    _, folder = saved
    change(folder, network=name)
    with pytest.raises(ValueError, match=f"run.json: no network is called '{name}'; .*TinyPoints"):
        read_run(folder)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="TinyPoints cannot be made with depth=3: "):
        build_network("TinyPoints", {"depth": 3})


def test_broken_weights(saved):
    _, folder = saved
    (folder / "weights.pt").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"weights.pt cannot be loaded: .+; train again"):
        load_run(folder)


def test_weights_of_another_network(saved):
    _, folder = saved
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, folder / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt cannot be loaded: Error\(s\) in loading"):
        load_run(folder)


@pytest.mark.parametrize(("option", "value"), [("cell_size", -1.0), ("block", float("nan"))])
def test_sizes_must_be_positive(option, value):
    data = Data("segmentation", [scene(0)], [], [])
    with pytest.raises(ValueError, match=r"--(cell-size|block) must be greater than 0, got"):
        plan(data, network="TinyPoints", **{option: value})
