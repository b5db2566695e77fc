"""Networks on sound, text and videos, in plain PyTorch: convolutions on lines and volumes.

Each function returns a model with random weights and settled norms, and an input for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from field_networks import made, unit
from plain_networks import head
from torch import Tensor, nn

# --- sound ----------------------------------------------------------------------------------------


class Dilated(nn.Module):
    """HiFi-GAN's residual block: convolutions further and further apart."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        reach = kernel // 2
        self.far = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=d * reach, dilation=d) for d in (1, 3, 5)
        )
        self.near = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=reach) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for far, near in zip(self.far, self.near, strict=True):
            x = x + near(F.leaky_relu(far(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Mean(nn.ModuleList):
    """The mean of what several modules make of the same."""

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (part(x) for part in self)
        for other in others:
            first = first + other
        return first / len(self)


class Vocoder(nn.Module):
    """Kong et al., "HiFi-GAN", 2020 (V2): sound from a spectrogram, 256 times as long."""

    def __init__(self, wide: int = 128) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, wide, 7, padding=3)
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for factor in (8, 8, 2, 2):
            self.ups.append(nn.ConvTranspose1d(wide, wide // 2, 2 * factor, factor, factor // 2))
            wide //= 2
            self.blocks.append(Mean(Dilated(wide, kernel) for kernel in (3, 7, 11)))
        self.last = nn.Conv1d(wide, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for up, blocks in zip(self.ups, self.blocks, strict=True):
            x = blocks(up(F.leaky_relu(x, 0.1)))
        return torch.tanh(self.last(F.leaky_relu(x)))


def vocoder(frames: int = 32) -> tuple[nn.Module, Tensor]:
    return made(Vocoder(), 80, frames)


class Causal(nn.Module):
    """A convolution that sees what was before, and its norm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.before = (kernel - 1) * dilation
        self.conv = nn.Conv1d(c_in, c_out, kernel, dilation=dilation)
        self.norm = nn.BatchNorm1d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(F.pad(x, (self.before, 0)))))


class Temporal(nn.Module):
    """Bai et al., 2018: two causal convolutions, plus the input."""

    def __init__(self, c_in: int, c_out: int, dilation: int) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            Causal(c_in, c_out, 3, dilation), nn.Dropout(0.1),
            Causal(c_out, c_out, 3, dilation), nn.Dropout(0.1))  # fmt: skip
        self.short = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.steps(x) + self.short(x))


def tcn(length: int = 1024) -> tuple[nn.Module, Tensor]:
    blocks = [Temporal(64 if i else 16, 64, 2**i) for i in range(8)]
    return made(nn.Sequential(*blocks, nn.Conv1d(64, 10, 1)), 16, length)


class WaveNet(nn.Module):
    """Van den Oord et al., 2016: gates from causal convolutions; each adds to the result."""

    def __init__(self, wide: int = 64, layers: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, wide, 1)
        self.signals, self.gates = (
            nn.ModuleList(nn.Conv1d(wide, wide, 2, dilation=2**i) for i in range(layers))
            for _ in range(2)
        )
        self.residuals, self.skips = (
            nn.ModuleList(nn.Conv1d(wide, wide, 1) for _ in range(layers)) for _ in range(2)
        )
        self.reaches = [2**i for i in range(layers)]
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(wide, wide, 1), nn.ReLU(),
                                  nn.Conv1d(wide, 256, 1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        found = torch.zeros_like(x)
        layers = zip(self.reaches, self.signals, self.gates, self.residuals, self.skips,
                     strict=True)  # fmt: skip
        for reach, signal, gate, residual, skip in layers:
            before = F.pad(x, (reach, 0))
            y = torch.tanh(signal(before)) * torch.sigmoid(gate(before))
            found = found + skip(y)
            x = x + residual(y)
        return self.last(found)


def wavenet(length: int = 4096) -> tuple[nn.Module, Tensor]:
    return made(WaveNet(), 1, length)


# --- text and videos ------------------------------------------------------------------------------


class Reader(nn.Module):
    """Shi et al., "CRNN", 2015: columns of an image of a line of text, read in both directions."""

    def __init__(self, symbols: int = 37) -> None:
        super().__init__()
        self.columns = nn.Sequential(
            unit(1, 64, 3), nn.MaxPool2d(2), unit(64, 128, 3), nn.MaxPool2d(2), unit(128, 256, 3),
            unit(256, 256, 3), nn.MaxPool2d((2, 1)), unit(256, 512, 3), unit(512, 512, 3),
            nn.MaxPool2d((2, 1)), nn.AdaptiveAvgPool2d((1, None)))  # fmt: skip
        self.both_ways = nn.LSTM(512, 128, 2, bidirectional=True, batch_first=True)
        self.symbols = nn.Linear(256, symbols)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.columns(x).squeeze(2).transpose(1, 2)
        return self.symbols(self.both_ways(columns)[0]).log_softmax(2)


def crnn(width: int = 128) -> tuple[nn.Module, Tensor]:
    return made(Reader(), 1, 32, width)


class Volumes(nn.Module):
    """Hara et al., "3D ResNets", 2018: the basic block on volumes."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            nn.Conv3d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm3d(c_out), nn.ReLU(),
            nn.Conv3d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm3d(c_out))  # fmt: skip
        self.short = nn.Identity() if c_in == c_out else nn.Sequential(
            nn.Conv3d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm3d(c_out))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.steps(x) + self.short(x))


def conv3d(size: int = 56) -> tuple[nn.Module, Tensor]:
    """Eight images of a video."""
    first = [nn.Conv3d(3, 32, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(32),
             nn.ReLU()]  # fmt: skip
    blocks = [Volumes(32, 32), Volumes(32, 64, 2), Volumes(64, 128, 2)]
    last = [nn.AdaptiveAvgPool3d(1), *head(128, 10)[1:]]
    return made(nn.Sequential(*first, *blocks, *last), 3, 8, size, size)


MODELS = {function.__name__: function for function in (vocoder, tcn, wavenet, crnn, conv3d)}
