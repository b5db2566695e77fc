"""Networks counted from shapes alone: the papers' tables, trees, kinds; what stays as it was."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pointwise
from pointwise import CellConv, CellSeparableConv, Conv2d, ConvNormAct, PointCloud, cost, costs
from pointwise.costs import Count
from pointwise.networks import CellUNet, Hua2018Segmentation, MobileNetV1, ResNet50

IMAGE = (1, 3, 224, 224)


def test_the_function_is_a_public_name():
    assert pointwise.cost is costs.cost is cost
    assert "cost" in dir(pointwise)


def test_mobilenet_v1_is_table_2_of_its_paper():
    """Howard et al., 2017, table 2: resources per layer type, to all digits that it has.

    The paper counts weights only: no biases, no norms.
    """
    found = cost(MobileNetV1(), IMAGE)
    kinds = found.by_kind()
    assert found.totals.multiply_adds == 568_740_352
    assert found.totals.parameters == 4_231_976
    assert kinds["linear"].parameters == 1_025_000
    weights = {name: kinds[name].parameters for name in ("pointwise", "depthwise", "standard")}
    weights["linear"] = kinds["linear"].parameters - 1000
    table = {
        "pointwise": (94.86, 74.59),
        "depthwise": (3.06, 1.06),
        "standard": (1.91, 0.02),  # the paper has 1.19, which does not add up to 100
        "linear": (0.18, 24.33),
    }
    for kind, (products, parameters) in table.items():
        share = 100 * kinds[kind].multiply_adds / found.totals.multiply_adds
        assert share == pytest.approx(products, abs=0.0051)
        share = 100 * weights[kind] / sum(weights.values())
        assert share == pytest.approx(parameters, abs=0.0051)


def test_a_layer_is_what_its_sizes_say():
    found = cost(MobileNetV1(), (4, 3, 224, 224))
    layers = {layer.name: layer for layer in found.layers}
    stem = layers["stem.conv"]
    expected = costs.convolution(224, 3, 32, stride=2, padding=1, batch=4)
    assert (stem.count, stem.kind, stem.type, stem.calls) == (expected, "standard", "Conv2d", 1)
    assert (stem.in_shapes, stem.out_shapes) == (((4, 3, 224, 224),), ((4, 32, 112, 112),))
    one = layers["blocks.5.depthwise.conv"]
    assert one.count == costs.depthwise(28, 256, stride=2, padding=1, batch=4)
    assert one.kind == "depthwise"
    assert layers["blocks.5.pointwise.conv"].count == costs.pointwise(14, 256, 512, batch=4)
    norm = layers["stem.norm"].count
    numbers = 4 * 32 * 112 * 112
    assert (norm.multiplications, norm.additions, norm.multiply_adds) == (numbers, numbers, 0)
    assert layers["stem"].kind == "activation"
    assert layers["stem"].count.others == numbers
    pooled = layers["(MobileNetV1)"].count  # what the network does between its modules
    assert (pooled.additions, pooled.multiplications) == (4 * 1024 * 48, 4 * 1024)
    linear = layers["classifier"].count
    assert (linear.multiply_adds, linear.additions) == (4 * 1024 * 1000, 4 * 1024 * 1000)
    assert linear.bytes == 4 * (4 * 1024 + 1024 * 1000 + 1000 + 4 * 1000)


@pytest.mark.parametrize("make", [MobileNetV1, ResNet50])
def test_layers_kinds_and_tree_add_up(make):
    found = cost(make(), (2, 3, 64, 64))
    assert costs.total(found.by_kind().values()) == found.totals
    branches = {branch.path: branch for branch in found.tree()}
    assert branches[""].count == found.totals
    for path, branch in branches.items():
        inside = [
            layer.count
            for layer in found.layers
            if not path or layer.path == path or layer.path.startswith(path + ".")
        ]
        assert branch.count == costs.total(inside)
    assert {branch.depth for branch in found.tree(1)} == {0, 1}
    assert branches[""].name == f"({make.__name__})"
    depths = [len(path.split(".")) if path else 0 for path in branches]
    assert [branch.depth for branch in found.tree()] == depths


def test_the_meta_device_and_weights_without_data_will_do():
    """With 40 GB of weights that are nowhere, and inputs that are nowhere either."""
    with torch.device("meta"):
        large = nn.Sequential(nn.Linear(100_000, 100_000, bias=False), nn.ReLU())
        small = MobileNetV1()
    assert cost(large, (7, 100_000)).totals.multiply_adds == 7 * 10**10
    assert cost(large, torch.empty(7, 100_000, device="meta")).totals.parameters == 10**10
    assert cost(small, IMAGE).totals == cost(MobileNetV1(), IMAGE).totals


def test_nothing_of_the_model_is_touched():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    model[1].eval()
    state = {
        name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()
    }
    modes = [module.training for module in model.modules()]
    cost(model, (1, 3, 8, 8))
    with pytest.raises(ValueError, match="does not run on"):
        cost(model, (1, 2, 8, 8))
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict(keep_vars=True).items():
        assert value is state[name][0]
        assert torch.equal(value, state[name][1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert type(model(torch.rand(1, 3, 8, 8))) is torch.Tensor


def test_weights_that_are_shared_count_once_and_calls_each_time():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.table = nn.Embedding(100, 16)
            self.out = nn.Linear(16, 100, bias=False)
            self.out.weight = self.table.weight

        def forward(self, x, words):
            return self.conv(self.conv(x)), self.out(self.table(words))

    found = cost(Shared(), (1, 8, 10, 10), torch.zeros(2, 5, dtype=torch.int64))
    conv, table, out = found.layers
    assert (conv.calls, conv.count.multiply_adds) == (2, 2 * 8 * 9 * 800)
    assert conv.count.parameters == 8 * 8 * 9 + 8
    assert table.count.parameters + out.count.parameters == 1600
    assert table.count.bytes_read == 10 * 8 + 10 * 16 * 4  # looked up, not all of it
    assert out.count.multiply_adds == 10 * 1600
    assert "conv ×2" in str(found)


def test_attention_and_recurrent_layers():
    """Formulas of Vaswani et al., 2017, and of Hochreiter and Schmidhuber, 1997."""
    batch, words, width, heads, inner = 2, 50, 32, 4, 2048
    layer = nn.TransformerEncoderLayer(width, heads, inner, batch_first=True)
    products = cost(layer, (batch, words, width)).by_kind()
    rows = batch * words
    assert products["attention"].multiply_adds == batch * 2 * words * words * width
    assert products["linear"].multiply_adds == rows * (4 * width * width + 2 * width * inner)
    lstm = cost(nn.LSTM(8, 16), (5, 2, 8))
    assert lstm.totals.multiply_adds == 5 * 2 * 4 * 16 * (8 + 16)
    assert lstm.by_kind()["recurrent"].parameters == 4 * 16 * (8 + 16 + 2)
    assert not lstm.not_counted

    def by_hand(x):
        return torch.softmax(x @ x.transpose(-1, -2), -1) @ x

    found = cost(by_hand, (2, 4, 50, 16)).by_kind()
    assert found["matrix product"].multiply_adds == 2 * 2 * 4 * 50 * 50 * 16
    assert found["softmax"].others == 3 * 2 * 4 * 50 * 50
    fused = cost(F.scaled_dot_product_attention, *[(2, 4, 50, 16)] * 3).by_kind()["attention"]
    assert fused.multiply_adds == found["matrix product"].multiply_adds


def test_functions_modules_and_inference_mode_are_seen():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(8, 3, 3, 3))

        @torch.inference_mode()
        def forward(self, x, *, scale):
            return F.linear(F.relu(F.conv2d(x, self.weight)).flatten(2), scale)

    found = cost(Functional(), (1, 3, 10, 10), scale=(5, 64))
    assert found.by_kind()["standard"] == costs.convolution(10, 3, 8)
    assert found.by_kind()["matrix product"].multiply_adds == 8 * 64 * 5
    assert found.by_kind()["activation"].others == 8 * 64


def test_what_has_no_formula_is_listed_and_its_bytes_are_counted():
    def sorts(x):
        return torch.linalg.matrix_exp(torch.sort(x).values + torch.relu(x))

    found = cost(sorts, (6, 6))
    assert found.not_counted == {"aten::linalg_matrix_exp": 1, "aten::sort": 1}
    left = found.by_kind()["not counted"]
    assert left.bytes_read == 2 * 4 * 36
    assert left.operations == 0
    assert "arithmetic not counted: aten.linalg_matrix_exp ×1, aten.sort ×1" in str(found)
    assert cost(torch.relu, (6, 6)).not_counted == {}


def test_parameters_that_no_operator_uses_are_not_lost():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(3, 4)
            self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 1))

        def forward(self, x):
            return self.conv(x)

    model = Odd()
    found = cost(model, (1, 2, 4, 4))
    assert found.totals.parameters == sum(p.numel() for p in model.parameters())
    assert found.by_kind()["nothing"].parameters == 16
    assert found.layers[-1].name == "unused"
    assert found.layers[-1].calls == 0


def test_memory_of_activations():
    """By hand: 1×2×8×8 floats are 512 bytes."""
    chain = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    found = cost(chain, (1, 2, 8, 8))
    # The input stays with the caller, the first result until relu's is there.
    assert found.peak_bytes == 512 + 1024 + 1024
    assert found.peak_at == "1"
    chain[1] = nn.ReLU(inplace=True)
    assert cost(chain, (1, 2, 8, 8)).peak_bytes == 512 + 1024 + 512
    wide = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Unflatten(1, (4, 8, 8)))
    assert cost(wide, (1, 2, 8, 8)).peak_bytes == 512 + 1024  # views are no memory

    def kept(x):
        y = x * 2
        return y + (x - 1) * (y + 3)  # x, y, x - 1, y + 3 and their product

    assert cost(kept, (1, 2, 8, 8)).peak_bytes == 5 * 512


def test_memory_is_that_of_a_real_run():
    """The same network on real tensors, whose storages Python's own counts let go of."""
    from pointwise.costs import trace

    network = MobileNetV1(width=0.25)
    x = torch.rand(1, 3, 64, 64)
    fake = cost(network, (1, 3, 64, 64))
    recorder = trace._Recorder(network, network.state_dict(keep_vars=True), None)
    recorder.live.add([x])
    paths = {id(module): path for path, module in network.named_modules()}
    with torch.no_grad(), trace._hooked(network, paths, recorder), recorder:
        network.eval()(x)
    assert recorder.live.peak == fake.peak_bytes


def test_our_layers_cost_the_same_as_functions_of_pytorch():
    ours = ConvNormAct(6, 8, 3, 2, groups=2, activation="relu6")
    theirs = nn.Sequential(
        nn.Conv2d(6, 8, 3, 2, 1, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
    )
    assert cost(ours, (2, 6, 9, 9)).totals == cost(theirs, (2, 6, 9, 9)).totals
    fused = cost(Conv2d(6, 8, 3, padding="same", activation="relu"), (2, 6, 9, 9), (2, 8, 9, 9))
    parts = fused.by_kind()
    assert parts["standard"].multiply_adds == 2 * 8 * 81 * 54
    assert parts["element-wise"].additions == parts["activation"].others == 2 * 8 * 81


# --- clouds ---------------------------------------------------------------------------------------


@pytest.fixture
def points():
    return torch.rand(300, 3, generator=torch.Generator().manual_seed(1))


def test_clouds_are_counted_as_they_are(points):
    cloud = PointCloud(points)
    table = cloud.neighborhood(0.2)
    found = cost(CellConv(5, 7, 0.2), (300, 5), cloud)
    assert found.by_kind()["cell"] == costs.cell_conv(table, 5, 7, bias=True)
    assert found.totals.exact
    assert found.not_counted == {}  # the cloud had been searched before
    separable = cost(CellSeparableConv(5, 7, 0.2), torch.rand(300, 5), cloud)
    halves = [separable.by_kind()[kind] for kind in ("cell depthwise", "pointwise")]
    assert costs.total(halves) == costs.cell_separable_conv(table, 5, 7, bias=True, joined=True)


def test_a_network_on_real_points_is_exact(points):
    offsets = torch.tensor([0, 100, 300])
    network = Hua2018Segmentation(3, 5, 0.2)
    found = cost(network, points, (300, 3), offsets)
    cloud = PointCloud(points, offsets)
    layers = [(3, 9, 1), (9, 9, 2), (9, 9, 3), (9, 9, 4), (36, 5, 1)]
    expected = costs.total(
        costs.cell_conv(cloud.neighborhood(0.2, dilation=d), i, o) for i, o, d in layers
    )
    assert found.by_kind()["cell"] == expected
    assert found.totals.exact
    assert found.not_counted == {"pointwise::cell_search": 4}


def test_points_that_are_a_shape_give_upper_bounds(points):
    offsets = torch.tensor([0, 100, 300])
    for network in (Hua2018Segmentation(3, 5, 0.2), CellUNet(3, 5, 0.2, depths=(1, 1))):
        exact = cost(network, points, (300, 3), offsets)
        most = cost(network, (300, 3), (300, 3), offsets)
        assert exact.totals.exact
        assert not most.totals.exact
        assert exact.totals.parameters == most.totals.parameters
        for kind, count in exact.by_kind().items():
            assert count.multiply_adds <= most.by_kind()[kind].multiply_adds
        assert "≤: upper bounds, since points were given by their shape" in str(most)
        assert "≤" not in str(exact)
    pairs = 100 * 100 + 200 * 200  # who is in the same cloud
    layer = cost(Hua2018Segmentation(3, 5), (300, 3), (300, 3), offsets).layers
    first = next(entry for entry in layer if entry.name == "trunk.layers.0")
    assert first.parts["cell"].multiply_adds == 27 * 300 * 3 * 9
    assert first.parts["cell"].bytes_read == 8 * 301 + 4 * (pairs + 300 * 3 + 27 * 3 * 9)


# --- how it is shown ------------------------------------------------------------------------------


def test_the_table_fits_80_columns():
    shown = str(cost(MobileNetV1(), IMAGE))
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("stem.conv", "depthwise", "569 M", "4.23 M", "94.9", "activations: 10.2 MB"):
        assert words in shown
    assert "blocks.12.pointwise.conv" in shown


def test_tables_of_kinds_and_trees():
    found = cost(MobileNetV1(), IMAGE)
    tree = found.table("tree", depth=1).splitlines()
    assert [line.split()[0] for line in tree[2:]] == [
        "(MobileNetV1)", "stem", "blocks", "dropout", "classifier"
    ]  # fmt: skip
    assert tree[2].split()[2:6] == ["4.23", "M", "569", "M"]
    assert found.table("kinds").splitlines()[2].split()[0] == "standard"
    assert found.table() in str(found)
    with pytest.raises(ValueError, match="by must be one of 'layers', 'kinds', 'tree', got 'name'"):
        found.table("name")


def test_the_numbers_go_to_json():
    found = cost(MobileNetV1(), IMAGE).as_dict()
    read = json.loads(json.dumps(found))
    assert read == found
    assert read["totals"]["multiply_adds"] == 568_740_352
    assert read["by_kind"]["pointwise"]["parameters"] == 3_139_584
    assert read["layers"][0]["layer"] == "stem.conv"
    assert sum(layer["bytes"] for layer in read["layers"]) == read["totals"]["bytes"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12_345, "12.3 k"), (999_499, "999 k"),
     (999_501, "1.00 M"), (568_740_352, "569 M"), (4.1e12, "4.10 T"), (0.5, "0.5")],
)  # fmt: skip
def test_numbers_have_three_digits(number, words):
    from pointwise.costs.tables import short

    assert short(number) == words


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: cost(MobileNetV1, IMAGE), TypeError, "got the class MobileNetV1; call it to make"),
        (lambda: cost(3, IMAGE), TypeError, "a module or a function of tensors, got 3"),
        (lambda: cost(nn.ReLU()), ValueError, r"ReLU needs its inputs, or their shapes, as in"),
        (lambda: cost(nn.Linear(3, 4), (5, 6)), ValueError, r"Linear does not run on \(5, 6\):"),
        (lambda: cost(nn.LazyLinear(4), (5, 6)), ValueError, "LazyLinear is lazy and does not"),
        (lambda: cost(lambda x: x[x > 0], (5, 6)), ValueError, "asks for values of tensors that"),
        (lambda: cost(MobileNetV1(), (1, 4, 64, 64)), ValueError, "MobileNetV1 does not run on"),
    ],
)
def test_what_cannot_be_counted_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_sums_of_nothing():
    assert costs.total([]) == Count()


def test_a_module_in_two_places_is_left_as_it_was():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), conv)
    twin = nn.Conv2d(4, 4, 3, padding=1)
    twin.weight = conv.weight
    network.append(twin)
    kept = dict(network.named_parameters(remove_duplicate=False))
    found = cost(network, (1, 4, 8, 8)).totals
    assert found.parameters == 4 * 4 * 9 + 4 + 4
    assert found.multiply_adds == 3 * 64 * 4 * 4 * 9
    for name, parameter in network.named_parameters(remove_duplicate=False):
        assert parameter is kept[name]
        assert type(parameter) is nn.Parameter
    assert conv.weight is twin.weight
