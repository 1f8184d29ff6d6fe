"""Lists the backbones: arguments, parameters, cost, published weights."""
from shiftwise_mm.cli.list_models import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
