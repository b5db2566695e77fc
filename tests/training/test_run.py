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


@pytest.mark.slow
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


NONSENSE = [
    (("recipe",), [], "recipe must be an object of keys and values, got \\[\\]"),
    (("recipe",), None, "recipe must be an object of keys and values, got null"),
    (("network",), 3, "network must be a text, got 3"),
    (("arguments",), "x", "arguments must be an object of keys and values"),
    (("arguments", "classes"), 7, "arguments.classes must be 3 by the recipe, got 7"),
    (("arguments", "in_channels"), -1, "arguments.in_channels must be . by the recipe, got -1"),
    (("arguments", "cell_size"), float("nan"), "arguments.cell_size must be a finite .*, got NaN"),
    (("recipe", "block"), -5, "recipe.block must be a finite number greater than 0, got -5"),
    (("recipe", "block"), float("inf"), "recipe.block must be .*, got Infinity"),
    (("recipe", "block"), True, "recipe.block must be .*, got true"),
    (("recipe", "margin"), 1e9, "recipe.margin must be less than half of recipe.block"),
    (("recipe", "most"), 0, "recipe.most must be a whole number, 1 or more, got 0"),
    (("recipe", "spacing"), "0", 'recipe.spacing must be a finite number, 0 or more, got "0"'),
    (("recipe", "unit_sphere"), 1, "recipe.unit_sphere must be true or false, got 1"),
    (("recipe", "task"), None, "has no 'task' in recipe"),
    (("recipe", "classes", "codes"), [10, 10, 30], "recipe.classes.codes must be .* ascending"),
    (("recipe", "classes", "codes"), [10, 20], "recipe.classes.codes must have 3 entries, got 2"),
    (("recipe", "classes", "names"), ["a", "a", "b"], "recipe.classes.names must be .* the same"),
    (("recipe", "classes", "names"), 10**400, "recipe.classes.names must be .*, got 1000.*…"),
    (("recipe", "features", "scale"), [0.0], "recipe.features.scale must be .* greater than 0"),
    (("recipe", "features", "names"), ["height"], "recipe.features.widths must have 1 entries"),
    (("separated",), {"a": 0}, "separated must be an object of ranks, 1 or more"),
    (("later",), 1, "it has 'later', which this version does not know; is it a later one's?"),
]


@pytest.mark.parametrize(("keys", "value", "message"), NONSENSE)
def test_nonsense_is_named_by_its_key(saved, keys, value, message):
    _, folder = saved
    described = json.loads((folder / "run.json").read_text())
    inner = described
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "run.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=rf"run.json is broken: .*{message}") as raised:
        load_run(folder)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "NaN", "{", "[" * 100_000, "\ufeff{}"])
def test_json_of_another_kind(saved, text):
    _, folder = saved
    (folder / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run.json is broken: .+; train again"):
        read_run(folder)


def test_a_network_that_cannot_be_made(saved, monkeypatch):
    _, folder = saved
    described = json.loads((folder / "run.json").read_text())
    change(folder, arguments={**described["arguments"], "depth": [1]})
    with pytest.raises(ValueError, match=r"run.json: TinyPoints cannot be made with .*depth"):
        read_run(folder)
    change(folder, network="CellUNet", arguments={**described["arguments"], "widths": -3})
    with pytest.raises(ValueError, match=r"run.json: .+") as raised:
        read_run(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_weights_that_are_not_finite(saved):
    run, folder = saved
    run.network.layers[0].bias.data[1] = float("nan")
    save_weights(run, folder)
    with pytest.raises(ValueError, match=r"weights.pt: layers.0.bias has values that are not fin"):
        load_run(folder)


def test_options_of_a_training_that_goes_on(tmp_path):
    from pointwise.training.run_schema import check_options

    good = {"data": ["rooms"], "epochs": 3}
    assert check_options(tmp_path / "run.json", good) == good
    for change, message in (
        (
            {"epochs": "many"},
            'options.epochs must be a whole number, 1 or more, or null, got "many"',
        ),
        ({"data": None}, "options.data must be a list of texts, not empty, got null"),
        ({"seed": -1}, "options.seed must be a whole number, 0 or more, got -1"),
        ({"colour": 1}, "it has 'colour' in options, which this version does not know"),
    ):
        with pytest.raises(ValueError, match=f"run.json is broken: {message}"):
            check_options(tmp_path / "run.json", good | change)
    with pytest.raises(ValueError, match="it has no 'data' in options"):
        check_options(tmp_path / "run.json", {})


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"callbacks": []}, [1, 2]])
def test_checkpoints_that_are_none(tmp_path, content):
    from pointwise.training.train import Settings, check_resumable

    if isinstance(content, bytes):
        (tmp_path / "last.ckpt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"train: .*last.ckpt (cannot be read|is no check).*anew"):
        check_resumable(tmp_path, Settings())


def test_checkpoints_of_an_earlier_version(tmp_path):
    """Whose optimiser had one group of parameters, AdamW's."""
    from pointwise.training.train import Settings, check_resumable

    optimiser = torch.optim.AdamW([torch.zeros(1)])
    state = {"Clock": {"seconds": 1.0, "steps": 3}}
    content = {"callbacks": state, "optimizer_states": [optimiser.state_dict()]}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"of an earlier version.*--from"):
        check_resumable(tmp_path, Settings())
