"""Lists the backbones: arguments, parameters, cost, published weights."""
import argparse
import sys
import warnings


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'list_models: {message}\n')
    parser.add_argument(
        'patterns', nargs='*', metavar='PATTERN', default=['*'],
        help="of names, such as 'shiftwise-*'; default: all")
    parser.add_argument(
        '--flops', action='store_true',
        help='count the multiply-adds of an image of 224x224 as well, which '
        'takes some seconds for each')
    parser.add_argument('--names', action='store_true',
                        help='only the names, one a line')
    parser.add_argument('--markdown', action='store_true',
                        help='a table in Markdown')
    parser.add_argument(
        '--zoo', action='store_true',
        help='instead of all that, the page of the model zoo')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> str:
    """What is to be printed."""
    from shiftwise_mm.zoo import (
        format_rows,
        list_models,
        model_rows,
        model_zoo_page,
    )
    if args.zoo:
        return model_zoo_page()
    names = list_models(args.patterns)
    if not names:
        raise ValueError('no name fits '
                         f'{" or ".join(map(repr, args.patterns))}, all are: '
                         f'{", ".join(list_models())}')
    if args.names:
        return '\n'.join(names)
    return format_rows(model_rows(names, flops=args.flops),
                       markdown=args.markdown)


def main(argv=None) -> None:
    args = parse_args(argv)
    with warnings.catch_warnings():
        # Those of the packages below; they would hide an error's one line.
        warnings.simplefilter('ignore', UserWarning)
        try:
            text = run(args)
        except (ValueError, OSError) as error:
            print('list_models:', *str(error).split(), file=sys.stderr)
            sys.exit(2)
    print(text.rstrip('\n'))
