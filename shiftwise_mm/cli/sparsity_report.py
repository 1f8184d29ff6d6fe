"""Tells which small kernels a checkpoint keeps, where, and what that saves."""
import argparse
import sys


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(
        2, f'sparsity_report: {message}\n')
    parser.add_argument('src', help='published or native checkpoint')
    parser.add_argument(
        '--out', help='folder for the report and its pictures; default: it '
        'is printed only')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.engine.sparsity_report import report_file
    try:
        report = report_file(args.src)
        if args.out is not None:
            report.write(args.out)
    except (ValueError, OSError) as error:
        print('sparsity_report:', *str(error).split(), file=sys.stderr)
        sys.exit(2)
    print(report.markdown(pictures=args.out is not None), end='')
