"""Models with the pooling blocks of published detectors, as people write them, and what tests compare of a model."""

import io
import warnings

import torch
from support import assert_same
from torch import nn


class Conv(nn.Module):
    def __init__(self, c1, c2, k=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, padding=k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


def keeps_size(k, **keywords):
    return nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2, **keywords)


class SPP(nn.Module):  # YOLOv3-SPP, YOLOv5
    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * (len(k) + 1), c2)
        self.m = nn.ModuleList([keeps_size(x) for x in k])

    def forward(self, x):
        x = self.cv1(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.cv2(torch.cat([x] + [m(x) for m in self.m], 1))


class SPPF(nn.Module):  # YOLOv5, YOLOv8
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * 4, c2)
        self.m = keeps_size(k)

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class NewerSPPF(nn.Module):  # a number of pools, and a shortcut
    def __init__(self, c1, c2, k=5, n=3, shortcut=False):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * (n + 1), c2)
        self.m = keeps_size(k)
        self.n = n
        self.add = shortcut and c1 == c2

    def forward(self, x):
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(getattr(self, "n", 3)))
        y = self.cv2(torch.cat(y, 1))
        return y + x if getattr(self, "add", False) else y


class SPPCSPC(nn.Module):  # YOLOv7
    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c2), Conv(c1, c2)
        self.cv3, self.cv4 = Conv(c2, c2, 3), Conv(c2, c2)
        self.m = nn.ModuleList([keeps_size(x) for x in k])
        self.cv5, self.cv6 = Conv(4 * c2, c2), Conv(c2, c2, 3)
        self.cv7 = Conv(2 * c2, c2)

    def forward(self, x):
        x1 = self.cv4(self.cv3(self.cv1(x)))
        y1 = self.cv6(self.cv5(torch.cat([x1] + [m(x1) for m in self.m], 1)))
        y2 = self.cv2(x)
        return self.cv7(torch.cat((y1, y2), dim=1))


class SPPELAN(nn.Module):  # YOLOv9
    def __init__(self, c1, c2, c3, k=5):
        super().__init__()
        self.c = c3
        self.cv1 = Conv(c1, c3)
        self.cv2, self.cv3, self.cv4 = keeps_size(k), keeps_size(k), keeps_size(k)
        self.cv5 = Conv(4 * c3, c2)

    def forward(self, x):
        y = [self.cv1(x)]
        y.extend(m(y[-1]) for m in [self.cv2, self.cv3, self.cv4])
        return self.cv5(torch.cat(y, 1))


class DarknetOrder(nn.Module):  # YOLOv4: the largest pool first, the map last
    def __init__(self, sizes=(5, 9, 13)):
        super().__init__()
        self.maxpools = nn.ModuleList([keeps_size(size) for size in sizes])

    def forward(self, x):
        return torch.cat([pool(x) for pool in self.maxpools[::-1]] + [x], dim=1)


class Bottleneck(nn.Module):  # YOLOX, and pools in a dict
    def __init__(self, c1, c2):
        super().__init__()
        self.conv1 = Conv(c1, 4)
        self.m = nn.ModuleDict({"a": keeps_size(3), "b": keeps_size(7)})
        self.conv2 = Conv(12, c2)

    def forward(self, x):
        x = self.conv1(x)
        return self.conv2(torch.concat(tensors=[x, *(m(x) for m in self.m.values())], dim=1))


class SPPNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.levels = nn.ModuleList([nn.AdaptiveMaxPool2d(n) for n in (6, 3, (2, 2), 1)])
        self.head = nn.Linear(6 * 50, 5)

    def forward(self, x):
        x = self.features(x)
        return self.head(torch.cat([level(x).flatten(1) for level in self.levels], 1))


class Detector(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.backbone = nn.Sequential(Conv(3, 8, 3), nn.MaxPool2d(2), Conv(8, 8))
        self.neck = block
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.neck(self.backbone(x)))


BLOCKS = {
    "SPP": (lambda: SPP(8, 8), "5, 9, 13"),
    "SPP in another order": (lambda: SPP(8, 8, (9, 3, 9)), "3, 9"),
    "SPPF": (lambda: SPPF(8, 8), "5, 9, 13 in cascade"),
    "newer SPPF": (lambda: NewerSPPF(8, 8, 3, 2), "3, 5 in cascade"),
    "newer SPPF with a shortcut": (lambda: NewerSPPF(8, 8, shortcut=True), "5, 9, 13 in cascade"),
    "SPPCSPC": (lambda: SPPCSPC(8, 8), "5, 9, 13"),
    "SPPELAN": (lambda: SPPELAN(8, 8, 6), "5, 9, 13 in cascade"),
    "YOLOX": (lambda: Bottleneck(8, 8), "3, 7"),
    "YOLOv4": (lambda: nn.Sequential(DarknetOrder(), nn.Conv2d(32, 8, 1)), "5, 9, 13"),
}


def results(model, x):
    """Outputs and every gradient, in float64, where the order of a sum does not show in ten digits."""
    x = x.detach().clone().requires_grad_()
    output = model(x)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (output * weight).sum().backward()
    grads = [x.grad, *(parameter.grad for parameter in model.parameters())]
    model.zero_grad()
    return output, grads


def assert_same_model(got, expected, shape=(2, 3, 40, 44)):
    for training in (False, True):
        got.train(training)
        expected.train(training)
        # Cells of two values, alike in every channel, stay tied behind convolutions of one cell.
        tied = (torch.rand(shape[0], 1, *shape[2:]) < 0.15).double().expand(shape)
        for x in (torch.randn(shape, dtype=torch.float64), tied):
            (output, grads), (expected_output, expected_grads) = results(got, x), results(expected, x)
            assert_same(output, expected_output)
            for grad, expected_grad in zip(grads, expected_grads, strict=True):
                torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-9)


def rows(report):
    return {row.name: (row.kind, row.replacement, row.note) for row in report.rows}


def save_and_load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)
