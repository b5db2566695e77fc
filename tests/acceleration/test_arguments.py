"""An accelerated model is called as its model is: by place, by name, with its defaults."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

import pointwise
from pointwise.acceleration.arguments import Arguments
from pointwise.onnx.file import read

torch.manual_seed(0)


class Scaled(nn.Module):
    """A model with arguments of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(
        self, image: Tensor, scale: float = 1.0, mask: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:
        found = self.conv(image) * scale
        if mask is not None:
            found = found * mask
        return found.relu() if relu else found


@pytest.fixture(scope="module")
def model() -> Scaled:
    return Scaled().eval()


def image(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 16, 12)


def accelerated(model, *args, **kwargs):
    faster = pointwise.accelerate(model, args, kwargs=kwargs)
    assert isinstance(faster, pointwise.acceleration.Accelerated)
    return faster


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_the_example_had_by_place_may_come_by_name(model):
    faster, x = accelerated(model, image(), 2.0), image(3)
    for found in (faster(x, 2.0), faster(x, scale=2.0), faster(scale=2.0, image=x)):
        assert_same(found, model(x, 2.0).detach())


def test_what_the_example_had_by_name_may_come_by_place(model):
    faster, x = accelerated(model, scale=2.0, image=image()), image(3)
    for found in (faster(x, 2.0), faster(image=x, scale=2.0)):
        assert_same(found, model(x, 2.0).detach())


def test_defaults_may_be_given_and_left_out(model):
    plain, x = accelerated(model, image()), image()
    for found in (plain(x), plain(x, 1.0), plain(x, 1.0, None), plain(x, relu=False, mask=None)):
        assert_same(found, model(x).detach())
    full = accelerated(model, image(), 1.0, None, relu=False)
    for found in (full(x), full(x, relu=False), full(image=x)):
        assert_same(found, model(x).detach())


def test_an_argument_between_may_be_left_out(model):
    mask = torch.rand(2, 8, 16, 12)
    faster, x = accelerated(model, image(), mask=mask, relu=True), image()
    for found in (faster(x, mask=mask, relu=True), faster(x, 1.0, mask, relu=True)):
        assert_same(found, model(x, mask=mask, relu=True).detach())


def test_other_values_than_the_example_s_are_refused(model):
    faster, x = accelerated(model, image(), 2.0), image()
    with pytest.raises(ValueError, match=r"scale must be 2\.0, as in the example.*got 1\.0"):
        faster(x)  # the model's default is another
    with pytest.raises(ValueError, match="relu was left out of the example, where it was False,"):
        faster(x, 2.0, relu=True)
    with pytest.raises(ValueError, match="mask was left out of the example, where it was None"):
        faster(x, 2.0, torch.rand(2, 8, 16, 12))
    with pytest.raises(TypeError, match="unexpected keyword argument 'sigmoid'"):
        faster(x, 2.0, sigmoid=True)
    with pytest.raises(TypeError, match="missing a required argument: 'image'"):
        faster(scale=2.0)
    with pytest.raises(TypeError, match="multiple values for argument 'scale'"):
        faster(x, 2.0, scale=2.0)


def test_sizes_and_types_are_checked_by_name_too(model):
    faster = accelerated(model, image=image())
    with pytest.raises(ValueError, match="image must be a float32 tensor of 4 dimensions"):
        faster(image=image().double())


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, *images: Tensor, **more: Tensor) -> Tensor:
        return self.conv(sum(images)) + sum(more.values())


def test_arguments_of_any_number():
    model, one, other = Sum().eval(), image(), image()
    faster = accelerated(model, one, other)
    assert_same(faster(other, one), model(other, one).detach())
    with pytest.raises(ValueError, match="arranged as in the example"):
        faster(one)
    with pytest.raises(ValueError, match="more was left out of the example, and is given here"):
        faster(one, other, third=one)


def test_arguments_of_any_name_are_left_to_torch_compile():
    model, one, other = Sum().eval(), image(), image()
    with pytest.warns(UserWarning, match="torch.export cannot trace this model"):
        faster = pointwise.accelerate(model, (one,), kwargs={"other": other})
    assert_same(faster(other, other=one), model(other, other=one).detach())


def test_a_default_that_is_no_plain_value():
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, image: Tensor, shift: Tensor = torch.ones(3, 1, 1)) -> Tensor:
            return self.conv(image) + shift

    model, x, shift = Shifted().eval(), image(), torch.rand(3, 1, 1)
    assert_same(accelerated(model, x)(x), model(x).detach())
    with pytest.raises(ValueError, match="it was the model's own default, and is given here"):
        accelerated(model, x)(x, shift)
    assert_same(accelerated(model, x, shift)(shift=shift, image=x), model(x, shift).detach())
    with pytest.raises(ValueError, match="shift must be given, as in the example"):
        accelerated(model, x, shift)(x)


def test_saved_it_takes_its_arguments_as_before(model):
    buffer = io.BytesIO()
    torch.save(accelerated(model, image(), 2.0), buffer)
    buffer.seek(0)
    faster, x = torch.load(buffer, weights_only=True), image(3)
    assert_same(faster(scale=2.0, image=x), model(x, 2.0).detach())
    with pytest.raises(ValueError, match=r"scale must be 2\.0"):
        faster(x)


def test_int8_by_name(model):
    x = image(8)
    faster = pointwise.accelerate(
        model, (), precision="int8", calibration=[x, x], kwargs={"image": x}
    )
    wanted = model(x).detach()
    assert (faster(image=x) - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_an_example_that_the_model_does_not_take(model):
    with pytest.raises(TypeError, match="not take this example: missing a required argument"):
        pointwise.accelerate(model, ())


@pytest.mark.parametrize(
    "plain",
    [
        {"parameters": [["x", 1, []]]},
        {"parameters": [["x", 1, [["a"]]]], "given": ["x"]},
        {"parameters": [["x()", 1, []]], "given": ["x()"]},
        {"parameters": [["x", 9, []]], "given": ["x"]},
        {"parameters": [["x", 1, []]], "given": ["y"]},
        None,
    ],
)
def test_a_file_has_parameters_and_nothing_else(plain):
    with pytest.raises(ValueError, match=r"no parameters of a model|valid|a default is"):
        Arguments.from_plain(plain)


def test_it_can_be_exported_as_plain_pytorch(model, tmp_path):
    x = image()
    faster = accelerated(model, x)
    wanted = model(x + 1).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(torch.jit.trace(faster, (x,))(x + 1), wanted)
        assert_same(torch.export.export(faster, (x,)).module()(x + 1), wanted)
        torch.onnx.export(faster, (x,), tmp_path / "model.onnx", dynamo=True)
    assert_same(read(tmp_path / "model.onnx")[0](x + 1), wanted)
