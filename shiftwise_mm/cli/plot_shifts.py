"""Draws where the taps of a shift-wise convolution land."""
from __future__ import annotations

import argparse
import sys

VIEWS = ('taps', 'reps', 'sum')


def parse_args(argv=None) -> argparse.Namespace:
    """The options; ends the process with code 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'plot_shifts: {message}\n')
    parser.add_argument('out', help='picture to write, .png, .svg or .pdf')
    parser.add_argument(
        '--view', choices=VIEWS, default='taps',
        help='taps (default): the places of one repetition; reps: which taps '
        'all repetitions put at each place; sum: weights, shifted and added')
    parser.add_argument('--large-kernel', type=int, default=51, metavar='M',
                        help='length of the large kernel; default: 51')
    parser.add_argument('--small-kernel', type=int, default=3, metavar='N',
                        help='side of the small kernels, odd; default: 3')
    parser.add_argument('--reps', type=int, metavar='R',
                        help='repetitions; default: 1, with reps and sum 4')
    parser.add_argument('--rep', type=int, default=0,
                        help='the one that taps draws; default: 0')
    parser.add_argument('--channels', type=int, default=1, metavar='C',
                        help='channels of the layer; default: 1')
    parser.add_argument('--channel', type=int, default=0,
                        help='the one that is drawn; default: 0')
    parser.add_argument('--seed', type=int, default=123,
                        help='of the tables; default: 123, the published one')
    parser.add_argument(
        '--ghost-ratio', type=float, default=0., metavar='G',
        help='share of the channels that pass unchanged; default: 0, the '
        'published networks take 0.23')
    parser.add_argument(
        '--style', default='unirep', help='unirep (default) or slak: how the '
        'ghosts are counted')
    parser.add_argument(
        '--density', type=float, default=1., metavar='D',
        help='share of the small kernels that reps keeps; default: 1')
    return parser.parse_args(argv)


def draw(args: argparse.Namespace):
    """The figure that the options ask for."""
    from shiftwise_mm.models.layers.ghost import split_channels
    from shiftwise_mm.ops import ShiftSpec
    from shiftwise_mm.ops.spec import check_int
    from shiftwise_mm.visualization import (
        kept_taps,
        plot_occupancy,
        plot_shifts,
        plot_sum,
    )
    check_int('channels', args.channels, 1)
    split = convolved = None
    if args.ghost_ratio:
        split = tuple(part.tolist() for part in split_channels(
            args.channels, args.ghost_ratio, args.style))
        convolved = split[0]
    reps = args.reps if args.reps is not None else \
        1 if args.view == 'taps' else 4
    spec = ShiftSpec.from_seed(
        channels=len(convolved) if split else args.channels,
        large_kernel=args.large_kernel, small_kernel=args.small_kernel,
        num_reps=reps, seed=args.seed)
    if args.density != 1 and args.view != 'reps':
        raise ValueError("density is drawn by view 'reps' alone, got view "
                         f'{args.view!r}')
    if args.view == 'taps':
        return plot_shifts(spec, args.channel, args.rep, split)
    channel = args.channel
    if split:
        if channel not in convolved:
            raise ValueError(f'channel must be one of the convolved, '
                             f'{convolved}, got {channel}')
        channel = convolved.index(channel)
    if args.view == 'sum':
        return plot_sum(spec, channel)
    return plot_occupancy(spec, channel, kept_taps(spec, args.density))


def main(argv=None) -> None:
    """The command."""
    args = parse_args(argv)
    from shiftwise_mm.visualization import save_figure
    try:
        save_figure(draw(args), args.out)
    except (ValueError, TypeError, OSError) as error:
        print('plot_shifts:', *str(error).split(), file=sys.stderr)
        sys.exit(2)
    print(args.out)
