"""Writes the deployed form of a trained model: a checkpoint and a config."""
import argparse
import sys
import warnings


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'deploy: {message}\n')
    parser.add_argument(
        'config', help='config of the model: a path, or mmdet::...')
    parser.add_argument(
        'checkpoint', help='checkpoint with all of the model: path or URL')
    parser.add_argument(
        'out', help='checkpoint to write, NAME.pth; the config becomes '
        'NAME.py')
    parser.add_argument(
        '--standalone', action='store_true',
        help='write the config whole, without a base')
    parser.add_argument('--force', action='store_true',
                        help='overwrite the files')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.engine.deploy import deploy_files
    with warnings.catch_warnings():
        # Those of the packages below; they would hide an error's one line.
        warnings.simplefilter('ignore')
        try:
            done = deploy_files(args.config, args.checkpoint, args.out,
                                standalone=args.standalone, force=args.force)
        except (ValueError, OSError) as error:
            text = ' '.join(str(error).split())
            if isinstance(error, FileExistsError):
                text += '; --force overwrites it'
            print(f'deploy: {text}', file=sys.stderr)
            sys.exit(2)
    print(done)


if __name__ == '__main__':
    main()
