"""Writes a model as ONNX, and compares it in onnxruntime."""
from shiftwise_mm.cli.export_onnx import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
