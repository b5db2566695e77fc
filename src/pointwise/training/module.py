"""The one Lightning module: rows of logits against rows of labels, whatever the task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import cos, pi

import lightning.pytorch as lightning
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torchmetrics.classification import MulticlassConfusionMatrix

from pointwise.training import processes
from pointwise.training.classes import IGNORED
from pointwise.training.feed import Batch
from pointwise.training.lovasz import lovasz_softmax
from pointwise.training.metrics import scores
from pointwise.training.muon import Muon, matrices_of

PATIENCE_FOR_NAN = 5  # batches in a row; one alone may be bad luck in half precision


class TrainingModule(lightning.LightningModule):
    """Cross entropy, AdamW with Muon, a warm-up and a cosine to zero, and a moving average of the
    weights.

    ``overlap`` adds a loss of the IoU, which labels of points, unlike classes of clouds, are judged
    by. ``progress`` says how much of the training is done, in 0..1: of its time or of its epochs.
    The average (``average.module``) is what is validated and kept: it is worth a longer annealing.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        *,
        progress: Callable[[], float],
        weights: Sequence[float] | None = None,
        learning_rate: float = 0.005,
        weight_decay: float = 0.01,
        label_smoothing: float = 0.0,
        overlap: bool = False,
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(
            copy.deepcopy(network), multi_avg_fn=_moving(decay), use_buffers=True
        )
        self.average.requires_grad_(False)  # nothing is learned by it
        self.progress = progress
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.label_smoothing, self.overlap = label_smoothing, overlap
        self.register_buffer(
            "weights", None if weights is None else torch.tensor(weights, dtype=torch.float32)
        )
        self.confusion = MulticlassConfusionMatrix(classes, ignore_index=IGNORED)
        self.lost = 0
        self.skipped = 0.0  # whether this step's loss is not finite, here or in another process

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of the rows that have a label, NaN where none has: weighted cross entropy, and with
        ``overlap`` the IoU's loss."""
        logits = logits.float()
        # As one image of many pixels: PyTorch's loss of rows takes eight times as long.
        loss = functional.cross_entropy(
            logits.t()[None].contiguous(),
            labels[None],
            weight=self.get_buffer("weights") if self.weights is not None else None,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
        )
        return loss + lovasz_softmax(logits, labels) if self.overlap else loss

    def training_step(self, batch: Batch, step: int) -> torch.Tensor | None:
        labelled = bool((batch.labels != IGNORED).any())
        if not labelled and processes.count() == 1:
            return None
        logits = self.network(*batch.inputs)
        # Other processes wait for this one's gradients, so zeros where there is nothing to learn.
        loss = self.loss(logits, batch.labels) if labelled else 0.0 * logits.float().sum()
        (self.skipped,) = processes.greatest(not bool(torch.isfinite(loss)))
        if self.skipped:
            self.lost += 1
            if self.lost >= PATIENCE_FOR_NAN:
                processes.say_once()
                value = loss.item() if not torch.isfinite(loss) else "not finite in some process"
                raise ValueError(
                    f"train: the loss was {value} in {self.lost} batches in a row;"
                    f" lower --learning-rate, which is {self.learning_rate:g}"
                )
            return None if processes.count() == 1 else loss
        self.lost = 0
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.labels))
        return loss

    def on_after_backward(self) -> None:
        if self.skipped and str(self.trainer.precision) != "16-mixed":  # its scaler skips by itself
            for parameter in self.network.parameters():
                parameter.grad = None

    def on_train_batch_end(self, *_) -> None:
        processes.average_buffers(self.network)
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, step: int) -> None:
        logits = self.average(*batch.inputs)
        self.confusion.update(logits.argmax(dim=1), batch.labels)

    def on_validation_epoch_end(self) -> None:
        result = scores(self.confusion.compute().cpu().numpy())
        self.confusion.reset()
        self.log("accuracy", result.overall_accuracy, prog_bar=True)
        self.log("class_accuracy", result.mean_class_accuracy)
        self.log("iou", result.mean_iou, prog_bar=True)

    def configure_optimizers(self):
        optimizer = Muon(
            self.network.parameters(),
            matrices_of(self.network),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            betas=(0.9, 0.95),  # a short memory: trainings here are hundreds of steps, not millions
            # Lightning does not clip the gradients of a fused optimiser in mixed precision.
            fused="mixed" not in str(self.trainer.precision),
        )
        # The step number is not asked: in minutes, nobody knows how many there will be.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: rate(self.progress()))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def rate(progress: float, *, warm_up: float = 0.05) -> float:
    """The share of the learning rate at ``progress`` in 0..1: a rise, then a cosine to zero."""
    if progress < warm_up:
        return max(progress / warm_up, 0.05)
    return 0.5 * (1 + cos(pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def _moving(decay: float):
    """An exponential moving average that starts short, so that short trainings profit as well."""

    @torch.no_grad()
    def update(averaged, current, count) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - share)
        else:
            torch._foreach_copy_(averaged, current)  # counters of batch norm

    return update
