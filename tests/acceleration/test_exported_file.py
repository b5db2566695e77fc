"""Programs in files: what torch.export.save writes is read, and nothing that would run code."""

from __future__ import annotations

import io
import json
import logging
import pickle
import zipfile

import pytest
import torch
from torch import nn

from pointwise.acceleration import exported_file
from pointwise.acceleration.exported_file import Untrusted


class Payload:
    """Unpickled, it writes a file; nothing else in these tests does."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Network(nn.Module):
    """Of many kinds of calls, with sizes left open."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.add_module("a-head", nn.Linear(8, 4))
        self.register_buffer("scale", torch.rand(8, 1, 1))

    def forward(self, x, y=None):
        with torch.no_grad():
            x = self.norm(self.conv(x)).relu() * self.scale
        side = x.shape[2] // 2 + x.shape[3] % 5
        x = nn.functional.interpolate(x[:, :, ::2], (side, side), mode="bilinear")
        return {"scores": self.get_submodule("a-head")(x.mean((2, 3))), "image": (x,)}


@pytest.fixture(scope="module")
def program():
    auto = torch.export.Dim.AUTO
    with torch.no_grad():
        return torch.export.export(
            Network().eval(),
            (torch.rand(2, 3, 17, 16),),
            dynamic_shapes=({0: auto, 2: auto, 3: auto},),
        )


@pytest.fixture(scope="module")
def saved(program):
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def older(program):
    """The layout before 2.8."""
    from torch._export.serde.serialize import serialize

    made, stream = serialize(program), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("version", "8.20")
        file.writestr("serialized_exported_program.json", made.exported_program)
        file.writestr("serialized_state_dict.pt", made.state_dict)
        file.writestr("serialized_constants.pt", made.constants)
        file.writestr("serialized_example_inputs.pt", made.example_inputs)
    return stream.getvalue()


def changed(content: bytes, path, changes) -> None:
    """An archive with other parts: the name without its folder, to what makes the new content."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
        folder = "" if "version" in old.namelist() else old.namelist()[0].split("/")[0] + "/"
        parts = {name.removeprefix(folder): old.read(name) for name in old.namelist()}
        for name, make in changes.items():
            parts[name] = make(parts.get(name, b""))
        for name, part in parts.items():
            new.writestr(folder + name, part)


def in_json(text: bytes, *path, to) -> bytes:
    found = at = json.loads(text)
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return json.dumps(found).encode()


def dumped(payload) -> bytes:
    stream = io.BytesIO()
    torch.save(payload, stream)
    return stream.getvalue()


def expressions(text: bytes, to: str) -> bytes:
    found = json.loads(text)

    def walk(part):
        if isinstance(part, dict):
            for key in part:
                part[key] = to if key == "expr_str" else walk(part[key])
        return [walk(item) for item in part] if isinstance(part, list) else part

    return json.dumps(walk(found)).encode()


MODEL, GRAPH = "models/model.json", ("graph_module", "graph")
CALLS = ("graph_module", "module_call_graph", 0, "signature")
NODE = (*GRAPH, "nodes", 0)


def program_with(*path, to):
    return lambda mark: {MODEL: lambda text: in_json(text, *path, to=to(mark))}


def running(mark) -> str:
    return f"open({str(mark)!r}, 'w')"


def weights_pickled(mark):
    config = {
        "config": {
            "conv.weight": {
                "path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None
            }
        }
    }  # fmt: skip
    return {
        "data/weights/model_weights_config.json": lambda _: json.dumps(config).encode(),
        "data/weights/weight_0": lambda _: dumped(Payload(mark)),
    }


def constants_pickled(name):
    def changes(mark):
        config = {
            "config": {
                "x": {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
            }
        }
        opaque = name.startswith("opaque")
        return {
            "data/constants/model_constants_config.json": lambda _: json.dumps(config).encode(),
            f"data/constants/{name}": lambda _: (
                pickle.dumps(Payload(mark)) if opaque else dumped(Payload(mark))
            ),
        }

    return changes


def spec_of(kind: str, context) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


ENUM = spec_of("builtins.dict", json.dumps([{"__enum__": True, "fqn": "written:Own", "name": "A"}]))
FACTORY = spec_of(
    "collections.defaultdict",
    {"default_factory_module": "written", "default_factory_name": "own", "dict_context": []},
)

# Each is refused, with these words.
CHANNELS = {
    "sample inputs": (
        lambda mark: {"data/sample_inputs/model.pt": lambda _: dumped(((Payload(mark),), {}))},
        "sample_inputs/model.pt': a pickle that holds more than tensors",
    ),
    "bare pickle": (
        lambda mark: {"data/sample_inputs/model.pt": lambda _: pickle.dumps(Payload(mark))},
        "a pickle that holds more than tensors",
    ),
    "older weights": (
        lambda mark: {"data/weights/model.pt": lambda _: dumped({"x": Payload(mark)})},
        "weights/model.pt': a pickle that holds more than tensors",
    ),
    "older constants": (
        lambda mark: {"data/constants/model.pt": lambda _: dumped({"x": Payload(mark)})},
        "constants/model.pt': a pickle that holds more than tensors",
    ),
    "weights": (weights_pickled, "a weight that is pickled"),
    "constants": (constants_pickled("tensor_0"), "a weight that is pickled"),
    "opaque objects": (constants_pickled("opaque_obj_0"), "a weight that is pickled"),
    "objects of TorchScript": (constants_pickled("custom_obj_0"), "a weight that is pickled"),
    "compiled libraries": (
        lambda mark: {"data/aotinductor/model/library.so": lambda _: b"\x7fELF"},
        "library.so': a part that is no data",
    ),
    "sizes": (
        lambda mark: {MODEL: lambda text: expressions(text, running(mark))},
        "more than arithmetic",
    ),
    "sizes of classes": (
        lambda mark: {MODEL: lambda text: expressions(
            text, f"Symbol('s0').__class__.__init__.__globals__[{running(mark)}]")},
        "more than arithmetic",
    ),
    "symbols": (
        lambda mark: {MODEL: lambda text: expressions(text, f'Symbol("x;{running(mark)}")')},
        "a symbol that is no name",
    ),
    "sizes without end": (
        lambda mark: {MODEL: lambda text: expressions(text, "Pow(Integer(9), Pow(9, Pow(9, 9)))")},
        "a power that is no small number",
    ),
    "conditions": (
        program_with("guards_code", to=lambda mark: [f"L['x'].size()[0] >= 0 or {running(mark)}"]),
        "more than arithmetic",
    ),
    "conditions' messages": (
        program_with("guards_code", to=lambda _: ["L['it\\'s\" + quit() + \"'] == 0"]),
        "a name that is no identifier",
    ),
    "calls of torch": (
        program_with(*NODE, "target", to=lambda _: "torch.hub.load"), "no call is named"),
    "calls of TorchScript": (
        program_with(*NODE, "target", to=lambda _: "torch.ops.aten.save.default"), "only compute"),
    "calls that read files": (
        program_with(*NODE, "target", to=lambda _: "torch.ops.aten.from_file.default"),
        "only compute",
    ),
    "calls of libraries": (
        program_with(*NODE, "target", to=lambda _: "torch.ops.load_library"), "no call is named"),
    "calls of operator": (
        program_with(*NODE, "target", to=lambda _: "_operator.methodcaller"), "no call is named"),
    "calls as arguments": (
        program_with(*NODE, "inputs", 0, "arg", to=lambda _: {"as_operator": "torch.os.system"}),
        "no call is named",
    ),
    "names of nodes": (
        program_with(*NODE, "name", to=lambda mark: f"x={running(mark)}"), "no identifier"),
    "names of inputs": (
        program_with(*CALLS, "forward_arg_names", to=lambda mark: [f"x={running(mark)}"]),
        "no identifier",
    ),
    "names of keywords": (
        program_with(*NODE, "inputs", 0, "name", to=lambda mark: f"x={running(mark)}"),
        "no identifier",
    ),
    "names of parameters": (
        program_with("graph_module", "signature", "input_specs", 0, "parameter", "parameter_name",
                     to=lambda mark: f'conv."+{running(mark)}+"'),
        "a name with quotes",
    ),
    "names of modules": (
        program_with("graph_module", "module_call_graph", 1, "fqn",
                     to=lambda mark: f'conv."+{running(mark)}+"'),
        "a name with quotes",
    ),
    "paths of modules": (
        program_with(*NODE, "metadata", "nn_module_stack", to=lambda mark: f'a,b."+{mark}+",c'),
        "a name with quotes",
    ),
    "enums": (program_with(*CALLS, "out_spec", to=lambda _: ENUM), "names a module to import"),
    "factories": (program_with(*CALLS, "out_spec", to=lambda _: FACTORY), "a function to import"),
    "keys": (
        program_with(*CALLS, "in_spec", to=lambda mark: spec_of(
            "builtins.dict", json.dumps([f"x={running(mark)}"]))),
        "a name that is more than that",
    ),
}  # fmt: skip


@pytest.mark.parametrize("channel", CHANNELS)
def test_no_code_is_run(channel, saved, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    changes, message = CHANNELS[channel]
    changed(saved, tmp_path / "program.pt2", changes(mark))
    (tmp_path / "written.py").write_text(f"own = open({str(mark)!r}, 'w')")  # what may be imported
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Untrusted, match=r"program\.pt2 may run code of its own: .*") as caught:
        exported_file.load(tmp_path / "program.pt2")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("part", ["state_dict", "constants", "example_inputs"])
def test_no_code_is_run_of_the_older_layout(part, older, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "program.pt2"
    changed(older, path, {f"serialized_{part}.pt": lambda _: dumped({"x": Payload(mark)})})
    with pytest.raises(Untrusted, match="a pickle that holds more than tensors"):
        exported_file.load(path)
    assert not mark.exists()
    target = in_json(
        zipfile.ZipFile(io.BytesIO(older)).read("serialized_exported_program.json"),
        *NODE, "target", to="torch.os.system",
    )  # fmt: skip
    changed(older, path, {"serialized_exported_program.json": lambda _: target})
    with pytest.raises(Untrusted, match=r"no call is named 'torch\.os\.system'"):
        exported_file.load(path)


def test_two_archives_in_one_are_both_looked_at(saved, older, tmp_path):
    """torch.export.load reads the older layout where the newer one fails."""
    mark, path = tmp_path / "mark", tmp_path / "program.pt2"
    with zipfile.ZipFile(path, "w") as both:
        for content in (saved, older):
            with zipfile.ZipFile(io.BytesIO(content)) as file:
                for name in file.namelist():
                    part = file.read(name)
                    if name == "serialized_example_inputs.pt":
                        part = dumped((Payload(mark),))
                    if not name.endswith("model.json"):
                        both.writestr(name, part)
    with pytest.raises(Untrusted, match="a pickle that holds more than tensors"):
        exported_file.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("layout", ["saved", "older"])
def test_programs_are_read(layout, program, tmp_path, request):
    (tmp_path / "program.pt2").write_bytes(request.getfixturevalue(layout))
    read = exported_file.load(tmp_path / "program.pt2")
    x = torch.rand(3, 3, 19, 22)
    with torch.no_grad():
        given, wanted = (made.module()(x)["scores"] for made in (read, program))
    assert torch.equal(given, wanted)


def test_trust_reads_what_is_foreign(saved, tmp_path, monkeypatch):
    # What PyTorch logs then has no arguments for its text, which pytest takes for an error.
    monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
    mark, path = tmp_path / "mark", tmp_path / "program.pt2"
    changed(saved, path, {"data/sample_inputs/model.pt": lambda _: dumped(((Payload(mark),), {}))})
    exported_file.load(path, trust=True)
    assert mark.exists()
