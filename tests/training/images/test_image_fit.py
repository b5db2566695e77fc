from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from toys import pictures

from pointwise.training.evaluate import evaluate_images, write_metrics
from pointwise.training.images import data as image_data
from pointwise.training.images.augment import ImageAugmentation
from pointwise.training.images.classify import classify_pictures
from pointwise.training.images.data import Pictures, feed, label_counts, loader
from pointwise.training.images.plan import plan_images
from pointwise.training.images.sources import ImageData
from pointwise.training.metrics import scores
from pointwise.training.picture import Picture
from pointwise.training.run import load_run
from pointwise.training.train import Settings, train

DATA = ImageData(pictures(24), pictures(6, 24), pictures(10, 30))


def a_run():
    return plan_images(DATA, network="TinyImages")


def a_feed(run, workers=0, seed=0, batch=8):
    return feed(run.recipe, DATA.train, DATA.validation, augmentation=ImageAugmentation(),
                batch=batch, workers=workers, seed=seed)  # fmt: skip


def test_what_can_be_learned_is_learned(tmp_path):
    run = a_run()
    before = scores(evaluate_images(run, DATA.test)).overall_accuracy
    spent = train(run, a_feed(run), tmp_path, Settings(epochs=12, learning_rate=0.02))
    matrix = evaluate_images(load_run(tmp_path), DATA.test)
    assert before < 0.9 < scores(matrix).overall_accuracy
    assert matrix.sum() == 20
    assert (matrix == evaluate_images(run, DATA.test)).all()
    result = write_metrics(run, matrix, tmp_path, spent=spent)
    assert result.counts.tolist() == [10, 10]
    names = {"run.json", "best.ckpt", "last.ckpt", "weights.pt", "metrics.json", "confusion.png"}
    assert names <= {path.name for path in tmp_path.iterdir()}


def test_batches_depend_on_the_seed_and_not_on_the_workers():
    run = a_run()
    alone, forked, other = (list(a_feed(run, w, s).train) for w, s in ((0, 0), (2, 0), (0, 1)))
    assert len(alone) == len(forked) == 6
    for a, b in zip(alone, forked, strict=True):
        torch.testing.assert_close(a.images, b.images, rtol=0, atol=0)
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(alone[0].images, other[0].images)


def test_an_epoch_reads_each_picture_once_in_a_new_order():
    run = a_run()
    made = Pictures(run.recipe, DATA.train, shuffle=True)
    epochs = []
    for epoch in range(2):
        samples = [made[epoch * 48 + i] for i in range(48)]
        epochs.append([pixels.tobytes() for pixels, _, _ in samples])
        assert {p.array.tobytes() for p in DATA.train} == set(epochs[-1])
    assert epochs[0] != epochs[1]


def test_validation_is_in_order_and_unchanged():
    run = a_run()
    batches = list(loader(run.recipe, DATA.test, batch=8))
    assert [len(batch.labels) for batch in batches] == [8, 8, 4]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0] * 10 + [1] * 10
    expected = run.recipe.batch([picture.array for picture in DATA.test])
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)


def test_pictures_too_many_for_memory_are_read_again(tmp_path, monkeypatch):
    files = []
    for i, picture in enumerate(DATA.test):
        Image.fromarray(picture.array).save(tmp_path / f"{i}.png")
        files.append(Picture(str(i), picture.label, file=tmp_path / f"{i}.png"))
    run = a_run()
    kept = [batch.images for batch in loader(run.recipe, files)]
    monkeypatch.setattr(image_data, "MEMORY", 1000)
    made = Pictures(run.recipe, files)
    assert made._kept is None
    read = [batch.images for batch in loader(run.recipe, files)]
    assert all(torch.equal(a, b) for a, b in zip(kept, read, strict=True))


def test_labels_are_counted_by_class():
    run = a_run()
    more = [*DATA.test, Picture("x", "unknown"), Picture("y", "lying")]
    assert label_counts(run.recipe, more).tolist() == [11, 10]


def test_a_last_small_batch_is_left_out_in_training():
    made = a_feed(a_run(), batch=5)
    assert [len(batch.labels) for batch in made.train] == [5] * 9
    assert len(made.example().labels) == 5


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_probabilities_do_not_depend_on_the_batch(batch):
    run = a_run()
    found = np.stack(list(classify_pictures(run, DATA.test, batch)))
    run.network.eval()
    with torch.no_grad():
        logits = run.network(run.recipe.batch([p.array for p in DATA.test]))
    np.testing.assert_allclose(found, logits.softmax(dim=1).numpy(), atol=1e-6)
