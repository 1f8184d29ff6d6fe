"""Measures the operator and the backbones against all peers, side by side.

Tables go to stdout in Markdown, raw figures to --json. No figure is printed
unless the outputs and gradients of all contestants agree.
"""
import argparse
import sys
import warnings


def positive(kind):
    def read(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float('inf'):
            raise argparse.ArgumentTypeError(
                f'must be a positive {kind.__name__}, got {text!r}')
        return value
    return read


INT, FLOAT = positive(int), positive(float)
SIZE = dict(type=INT, metavar=('H', 'W'), nargs=2)
SHAPE = dict(type=INT, metavar=('B', 'C', 'H', 'W'), nargs=4)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    def command(name: str, text: str, **shape) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument('--shape', help='instead of the default', **shape)
        sub.add_argument('--batch', type=INT, help='images')
        sub.add_argument('--threads', type=INT, help='of torch')
        time = sub.add_mutually_exclusive_group()
        time.add_argument('--seconds', type=FLOAT, default=1.,
                          help='for each contestant and pass (default: 1)')
        time.add_argument('--repeats', type=INT, help='instead of --seconds')
        sub.add_argument('--device', default='cpu', help='cpu or cuda')
        sub.add_argument('--rows', nargs='+', metavar='PART',
                         help='only rows whose names contain a part')
        sub.add_argument('--json', metavar='FILE', help='raw figures')
        sub.add_argument('--peak-size', type=INT, default=2048,
                         help='side of the matrices for the peak')
        return sub

    def kernel(sub: argparse.ArgumentParser, default: tuple) -> None:
        sub.add_argument('--kernel', type=INT, nargs=2, metavar=('M', 'N'),
                         default=default, help='large and small kernel')

    op = command('op', 'The operator and shift-add alone; without --shape '
                 'at the shapes of the goals.', **SHAPE)
    kernel(op, (51, 3))
    op.add_argument('--reps', type=INT, default=4, help='of --shape')
    op.add_argument('--density', type=FLOAT, default=1.,
                    help='share of the taps that are kept')
    for name in ('table1', 'table3'):
        sub = command(name, f'The seed paper\'s {name[:-1]} {name[-1]} on '
                      'this device, beside the published figures.', **SIZE)
        sub.add_argument('--channels', type=INT)
        kernel(sub, (51, 5))
    command('table2', 'The layers of the seed paper\'s table 2 at its '
            'densities; --shape: of stage 0, --rows: of these stages.',
            **SIZE)
    command('model', 'Backbones: inference, training step, memory; without '
            '--shape at 224x224 and 800x1344.', **SIZE)
    scaling = command('scaling', 'Our forms against B, C, H*W, k, reps, '
                      'density, threads; --rows chooses of these.', **SHAPE)
    kernel(scaling, (51, 3))
    scaling.add_argument('--reps', type=INT, default=4)
    for each in (parser, *commands.choices.values()):
        each.error = lambda message: parser.exit(2, f'benchmark: {message}\n')
    return parser.parse_args(argv)


def run(args: argparse.Namespace):
    """The report of a sub-command."""
    from shiftwise_mm.analysis import benchmark
    settings = benchmark.Settings(
        device=args.device, threads=args.threads, rows=args.rows,
        budget=benchmark.Budget(args.seconds, args.repeats),
        peak_size=args.peak_size)
    options = {'batch': args.batch}
    size = 'size' if args.command.startswith('table') else 'shape'
    options[size] = args.shape
    for name, option in (('kernel', 'kernel'), ('reps', 'num_reps'),
                         ('density', 'density'), ('channels', 'channels')):
        options[option] = getattr(args, name, None)
    return getattr(benchmark, f'run_{args.command}')(settings, **{
        name: value for name, value in options.items() if value is not None})


def main(argv=None) -> None:
    with warnings.catch_warnings():
        # Those of the packages below; they would hide an error's one line.
        warnings.simplefilter('ignore', UserWarning)
        args = parse_args(argv)
        from shiftwise_mm.analysis.benchmark import Disagreement, write_json
        try:
            report = run(args)
            print(report.markdown())
            if args.json:
                write_json(report, args.json)
        except (ValueError, TypeError, OSError, Disagreement) as error:
            print('benchmark:', *str(error).split(), file=sys.stderr)
            sys.exit(1 if isinstance(error, Disagreement) else 2)
