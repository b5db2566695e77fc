from __future__ import annotations

import sys

import pytest
import typer

from pointwise import cli


@pytest.mark.parametrize(("raised", "said"), [(KeyboardInterrupt(), "pointwise: interrupted\n"),
                                              (typer.Exit(3), "")])  # fmt: skip
def test_ctrl_c_is_one_plain_line(raised, said, monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def work() -> None:
        raise raised

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["pointwise"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == (130 if said else 3)
    assert capsys.readouterr().err.strip("\n") == said.strip("\n")
