"""Draws where the taps of a shift-wise convolution land."""
import argparse
import sys
from pathlib import Path


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', help='picture to write, .png, .svg or .pdf')
    parser.add_argument('--large-kernel', type=int, default=51)
    parser.add_argument('--small-kernel', type=int, default=3)
    parser.add_argument('--reps', type=int, default=1)
    parser.add_argument('--rep', type=int, default=0)
    parser.add_argument('--channels', type=int, default=1)
    parser.add_argument('--channel', type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.ops import ShiftSpec
    from shiftwise_mm.visualization import plot_shifts
    out = Path(args.out)
    part = out.with_name(f'.{out.stem}.part{out.suffix}')
    try:
        spec = ShiftSpec.from_seed(
            channels=args.channels, large_kernel=args.large_kernel,
            small_kernel=args.small_kernel, num_reps=args.reps)
        plot_shifts(spec, args.channel, args.rep).savefig(part, dpi=110)
        part.replace(out)
    except (ValueError, OSError) as error:
        part.unlink(missing_ok=True)
        print(f'plot_shifts: {error}', file=sys.stderr)
        sys.exit(2)
    print(out)
