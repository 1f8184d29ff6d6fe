"""What counts and published peaks say of a GPU that was not measured."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shiftwise_mm.ops import ShiftSpec

from .counts import FLOAT, Work, conv_work, shift_work
from .machine import Peaks
from .report import Table

__all__ = ['H100', 'predict_table1']

# Published by NVIDIA for the H100 SXM5, not measured: 67 TFLOP/s in float32
# without tensor cores, 3.35 TB/s of its HBM3.
H100 = Peaks(macs=67e12 / 2, bytes=3.35e12)


@dataclass(frozen=True)
class _Pass:
    """A kernel that reads and writes its tensors once.

    Attributes:
        work (Work): All that it does.
        y (int): Bytes of ``y`` or its gradient in it.
    """

    work: Work
    y: int = 0

    def seconds(self, peaks: Peaks) -> float:
        """What the scarcer of both needs."""
        return max(self.work.bytes / peaks.bytes, self.work.macs / peaks.macs)


@dataclass(frozen=True)
class _Strategy:
    label: str
    forward: tuple[_Pass, ...]
    backward: tuple[_Pass, ...]
    published: tuple[float, float]  # ms, on the GPU of the seed paper


def _slice_pass(spec: ShiftSpec, shape: Sequence[int]) -> _Pass:
    """Every tap's part of ``y`` is read, a sum read and written again."""
    batch, channels, height, width = shape
    whole = height + spec.small_kernel - 1
    rows = sum(max(min(height, whole + p) - max(p, 0), 0)
               for p in spec.position_offsets().tolist())
    part = FLOAT * batch * channels * width * rows
    return _Pass(Work(0, 3 * part), part)


def _strategies(spec: ShiftSpec,
                shape: Sequence[int]) -> tuple[_Strategy, ...]:
    """The rows of table 1, one direction, the gradients of both leaves."""
    batch, channels, height, width = shape
    plane = FLOAT * batch * channels * height * width
    n, k = spec.small_kernel, spec.num_taps
    direct = conv_work(spec, shape, ('v', ))
    both = conv_work(spec, shape, ('v', ), backward=True)
    direct_back = Work(both.macs - direct.macs, both.bytes - direct.bytes)
    y = shift_work(spec, shape, ()).bytes
    # Padded by N - 1, each element of x meets each of the small kernels'.
    macs = plane // FLOAT * k * n * n
    grouped = _Pass(Work(macs, plane + y + FLOAT * channels * k * n * n), y)
    shift = _Pass(shift_work(spec, shape, ('v', )), y)
    sliced = _slice_pass(spec, shape)
    zeros = _Pass(Work(0, y), y)
    return (
        _Strategy('depthwise, dense', (_Pass(direct), ),
                  (_Pass(direct_back), ), (15.4, 24.8)),
        _Strategy('grouped convolution alone', (grouped, ),
                  (grouped, grouped), (25.0, 34.4)),
        _Strategy('+ slice shift', (grouped, sliced),
                  (zeros, sliced, grouped, grouped), (40.3, 49.1)),
        _Strategy('+ a shift kernel (form shift)', (grouped, shift),
                  (shift, grouped, grouped), (31.9, 46.8)),
        _Strategy('form fused, all taps', (_Pass(direct), ),
                  (_Pass(direct_back), ), (None, None)),
    )


def predict_table1(peaks: Peaks = H100, *, batch: int = 90,
                   channels: int = 128, size: Sequence[int] = (56, 56),
                   kernel: Sequence[int] = (51, 5)) -> Table:
    r"""The fewest bytes and multiply-adds of table 1, over a device's peaks.

    A kernel takes at least

    .. math:: t = \max(bytes / peak_{bytes},\ macs / peak_{macs})

    and kernels follow each other; every kernel touches its tensors once, in
    float32, and no cache keeps them for the next. Backward gives both
    gradients: the data's and the weight's, of the grouped convolution in a
    kernel each. Other ways to shift read ``y`` as well, so none beats the
    row of the shift kernel.

    Args:
        peaks (Peaks): Published or measured. Defaults to :data:`H100`.
        batch (int): ``B``. Defaults to 90, the paper's.
        channels (int): ``C``. Defaults to 128.
        size (Sequence[int]): ``(H, W)``. Defaults to 56 by 56.
        kernel (Sequence[int]): ``(M, N)``. Defaults to 51 and 5.
    """
    spec = ShiftSpec.tiled(channels=channels, large_kernel=kernel[0],
                           small_kernel=kernel[1])
    shape = (batch, channels, *size)
    table = Table(f'table 1 at {shape}, M {kernel[0]}, N {kernel[1]}: '
                  'predicted, not measured')
    for strategy in _strategies(spec, shape):
        forward = strategy.forward
        y = sum(p.y for p in forward)
        table.rows.append({
            'row': strategy.label,
            'x, outputs, weights GB':
            (sum(p.work.bytes for p in forward) - y) / 1e9,
            'y GB': y / 1e9,
            'GFLOP': 2 * sum(p.work.macs for p in forward) / 1e9,
            'forward ms': 1e3 * sum(p.seconds(peaks) for p in forward),
            'backward ms':
            1e3 * sum(p.seconds(peaks) for p in strategy.backward),
            'published forward ms': strategy.published[0],
            'published backward ms': strategy.published[1],
        })
    table.notes += [
        f'peaks: {2 * peaks.macs / 1e12:.3g} TFLOP/s, '
        f'{peaks.bytes / 1e12:.3g} TB/s; bytes and flops are those of the '
        'forward pass',
        'published: the seed paper, measured on its own GPU',
    ]
    return table
