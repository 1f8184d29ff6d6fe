"""Trains the demo's network densely and sparsely, and tells what came out.

On each data set once for each sparsity and seed. Runs that are complete are
not made again.
"""
import argparse
import sys


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(
        2, f'compare_sparsity: {message}\n')
    parser.add_argument(
        'data', nargs='+', help='folder in the COCO format, or of images and '
        'label maps, as the demos take them')
    parser.add_argument(
        '--sparsity', type=float, nargs='+', default=[.4, .7],
        help='shares of the small kernels to train without, in [0, 1), '
        'beside the dense training; default: 0.4 0.7')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='default: 0 1 2')
    parser.add_argument('--small-kernel', type=int, default=5,
                        help='side of the small kernels; default: 5')
    parser.add_argument(
        '--iters', type=int,
        help='training iterations; default: those of the recipe')
    parser.add_argument(
        '--seconds', type=float, default=2.,
        help='time to measure each trained network; default: 2')
    parser.add_argument(
        '--out', default='work_dirs/compare_sparsity',
        help='folder of the results; default: %(default)s')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.analysis.benchmark.timing import Budget
    from shiftwise_mm.engine.sparsity_comparison import (
        Settings,
        read_folder,
        run_all,
        runs_of,
    )
    from shiftwise_mm.engine.sparsity_comparison_report import (
        compare,
        write_report,
    )
    try:
        folders = [read_folder(data) for data in args.data]
        runs = runs_of(args.sparsity, args.seeds)
        settings = Settings(args.small_kernel, args.iters)
        budget = Budget(args.seconds)
        results = [list(run_all(folder, runs, settings, args.out))
                   for folder in folders]
        report = write_report(
            [compare(folder, found, budget)
             for folder, found in zip(folders, results, strict=True)],
            args.out)
    except (ValueError, OSError) as error:
        print('compare_sparsity:', *str(error).split(), file=sys.stderr)
        sys.exit(2)
    print(report, end='')
