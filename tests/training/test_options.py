"""The options of a training: the command's with its defaults, and those of ``run.json``."""

import inspect

from pointwise.cli.train import train
from pointwise.training.options import Options
from pointwise.training.run_schema import OPTIONS


def test_they_are_those_of_the_command_and_of_the_file():
    told = {name.removesuffix("_"): p for name, p in inspect.signature(train).parameters.items()}
    del told["out"], told["resume"]
    plain = Options(data=["rooms"]).as_plain()
    assert set(plain) == set(told) == set(OPTIONS)
    assert all(told[name].default == value for name, value in plain.items() if name != "data")


def test_runs_of_earlier_and_later_versions_have_fewer_and_more():
    options = Options.from_plain({"data": ["rooms"], "seed": 3, "colour": 1})
    assert options == Options(data=["rooms"], seed=3)
    assert Options.from_plain(options.as_plain()) == options
