"""Tells what works in this environment, and the command that mends the rest.

Exit code 1 if something is broken that the installed features need.
"""
import argparse
import json


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'doctor: {message}\n')
    parser.add_argument('--json', action='store_true',
                        help='print it for programs, as one JSON object')
    parser.add_argument(
        '--full', action='store_true',
        help='test the fused form, too, whose kernels take long to compile')
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    from shiftwise_mm.diagnosis import diagnose
    diagnosis = diagnose(args.full)
    if args.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        print(diagnosis)
    return 1 if diagnosis.broken else 0
