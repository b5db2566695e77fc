from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import pictures

from pointwise.networks import MobileNetV1
from pointwise.training.images.classify import classify_pictures
from pointwise.training.images.pretrained import CROP, IMAGENET, pretrained
from pointwise.training.images.sources import read_pictures
from pointwise.training.picture import Picture


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    network = MobileNetV1(classes=7, width=0.5)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    return network.eval(), tmp_path / "w.pth"


def test_width_and_classes_follow_from_the_weights(weights):
    network, path = weights
    run = pretrained("MobileNetV1", path, size=32)
    assert run.arguments == {"classes": 7, "width": 0.5}
    assert (run.recipe.mean, run.recipe.std) == IMAGENET
    assert (run.recipe.size, run.recipe.crop) == ((32, 32), CROP)
    assert run.recipe.classes.names[6] == "class 6"
    some = pictures(2, size=(40, 48))
    with torch.no_grad():
        read = run.recipe.batch([run.recipe.pixels(picture) for picture in some])
        expected = network(read).softmax(dim=1).numpy()
    np.testing.assert_allclose(np.stack(list(classify_pictures(run, some))), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size"),
    [("v1_0.25_128_quant.pth", 128), ("v1_1.0_192.pth", 192), ("v1_1281.pth", 224)],
)
def test_the_size_may_be_in_the_name(weights, tmp_path, name, size):
    weights[1].rename(tmp_path / name)
    assert pretrained("MobileNetV1", tmp_path / name).recipe.size == (size, size)


def test_names_of_classes(weights, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdefg") + "\n")
    run = pretrained("MobileNetV1", weights[1], labels=labels)
    assert run.recipe.classes.names == tuple("abcdefg")
    labels.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"labels\.txt: has 2 names, but the weights tell 7"):
        pretrained("MobileNetV1", weights[1], labels=labels)
    labels.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"labels\.txt: is no text"):
        pretrained("MobileNetV1", weights[1], labels=labels)


def test_weights_that_do_not_fit(weights, tmp_path):
    with pytest.raises(ValueError, match=r"w\.pth: load_weights: the weights do not fit"):
        pretrained("MobileNetV1", weights[1], arguments={"width": 0.25})
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: no layer that gives the classes"):
        pretrained("MobileNetV1", tmp_path / "other.pth")


def test_real_weights_know_a_cat(shared_data):
    run = pretrained(
        "MobileNetV1",
        shared_data / "mobilenet_v1/mobilenet_v1_0.25_128_quant_weights_dequant.npz",
        labels=shared_data / "mobilenet_v1/imagenet_labels.txt",
    )
    assert run.recipe.size == (128, 128)
    assert run.arguments["width"] == 0.25
    assert len(run.recipe.classes) == 1001
    for name, expected in (("cat.png", "Egyptian cat"), ("parrot.jpg", "macaw")):
        (probabilities,) = classify_pictures(run, read_pictures(shared_data / "photos" / name))
        assert run.recipe.classes.names[probabilities.argmax()] == expected
        assert probabilities.max() > 0.4


@pytest.mark.parametrize(
    ("photo", "wanted"),
    [("hot_dog.jpg", "hotdog"), ("owl.jpg", "great grey owl"), ("parrot.jpg", "macaw")],
)
def test_published_weights_know_real_photographs(shared_data, photo, wanted):
    folder = shared_data / "mobilenet_v1"
    (weights,) = folder.glob("*.npz")
    run = pretrained("MobileNetV1", weights, labels=folder / "imagenet_labels.txt")
    picture = Picture(photo, file=shared_data / "photos" / photo)
    with torch.inference_mode():
        scores = run.network(run.recipe.batch([run.recipe.pixels(picture)]))[0]
    best = [run.recipe.classes.names[i] for i in scores.topk(5).indices]
    assert any(name.startswith(wanted) for name in best), best
