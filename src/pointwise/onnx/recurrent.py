"""Recurrent layers of ONNX files: PyTorch's, with the weights in its order."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from pointwise.onnx.call import Call, are_constant

# Where PyTorch's gates stand among those of the file.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}
_LAYERS: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Recurrent(nn.Module):
    """One of PyTorch's layers, with inputs and results arranged as ONNX has them.

    ``x`` is ``[T, N, C]``; the results are all states ``[T, D, N, H]`` of D directions, then the
    last ones, ``[D, N, H]`` each.
    """

    def __init__(self, layer: Any, backwards: bool) -> None:
        super().__init__()
        self.layer, self.backwards = layer, backwards

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        if self.backwards:
            x = x.flip(0)
        begin = (states if len(states) > 1 else states[0]) if states else None
        out, last = self.layer(x, begin)
        every = out.unflatten(2, (-1, self.layer.hidden_size)).transpose(1, 2)
        if self.backwards:
            every = every.flip(0)
        return (every, *(last if isinstance(last, tuple) else (last,)))


def recurrent(
    call: Call, x: Any, weight: Any, hidden_weight: Any, bias: Any = None, lengths: Any = None,
    hidden: Any = None, cell: Any = None, peepholes: Any = None,
) -> Any:  # fmt: skip
    if not are_constant(weight, hidden_weight, bias) or not isinstance(x, fx.Node):
        raise call.refuse("has a weight that is computed")
    if lengths is not None or peepholes is not None:
        raise call.refuse("has lengths of its lines, or peepholes, which PyTorch's does not have")
    direction = call.one_of("direction", "forward", "reverse", "bidirectional")
    layer = _layer(call, weight, hidden_weight, bias, direction)
    turned = call.one_of("layout", 0, 1)
    if turned:
        x = call(torch.transpose, x, 0, 1)
    states = [state for state in (hidden, cell) if state is not None]
    if call.kind == "LSTM" and len(states) == 1:
        raise call.refuse("has one of its two states")
    if turned:
        states = [call(torch.transpose, state, 0, 1) for state in states]
    layer = Recurrent(layer, direction == "reverse")
    made = call.builder.module(call.name, layer, weight, x, *states)
    count = 3 if call.kind == "LSTM" else 2
    every, *last = (call(operator.getitem, made, i) for i in range(count))
    if turned:
        every = call(torch.permute, every, (2, 0, 1, 3))
        last = [call(torch.transpose, state, 0, 1) for state in last]
    return (every, *last)


def _layer(call: Call, weight: Tensor, hidden_weight: Tensor, bias: Any, direction: str) -> Any:
    directions, hidden = len(weight), hidden_weight.shape[2]
    call.without_effect("activation_alpha", "activation_beta", "output_sequence")
    if call.get("clip") or call.get("input_forget"):
        raise call.refuse("keeps its numbers within bounds, or couples its gates")
    if call.get("hidden_size", hidden) != hidden:
        raise call.refuse(f"has hidden_size {call.get('hidden_size')} and weights of {hidden}")
    options = {}
    wanted = _ACTIVATIONS[call.kind] * directions
    given = [name.decode() if isinstance(name, bytes) else name
             for name in call.get("activations", wanted)]  # fmt: skip
    if call.kind == "RNN" and given == ["Relu"] * directions:
        options["nonlinearity"] = "relu"
    elif given != wanted:
        raise call.refuse(f"has activations {given}, and PyTorch's has {wanted}")
    if call.kind == "GRU" and not call.get("linear_before_reset", 0):
        raise call.refuse("resets before its product (linear_before_reset 0), PyTorch's behind it")
    both = direction == "bidirectional"
    layer = _LAYERS[call.kind](
        weight.shape[2], hidden, bias=bias is not None, bidirectional=both, **options
    )
    gates, order = len(_GATES[call.kind]), list(_GATES[call.kind])
    for i, end in enumerate(("", "_reverse")[:directions]):
        parts = {f"weight_ih_l0{end}": weight[i], f"weight_hh_l0{end}": hidden_weight[i]}
        if bias is not None:
            parts |= dict(
                zip((f"bias_ih_l0{end}", f"bias_hh_l0{end}"), bias[i].chunk(2), strict=True)
            )
        for name, part in parts.items():
            turned = part.unflatten(0, (gates, hidden))[order].flatten(0, 1).contiguous()
            setattr(layer, name, nn.Parameter(turned, requires_grad=False))
    return layer
