"""Writes the deployed form of a trained model: a checkpoint and a config."""
from shiftwise_mm.cli.deploy import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
