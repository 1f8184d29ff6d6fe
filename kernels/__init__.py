"""Taichi kernels: no autograd, no modules, nothing imported before use.

The folder is installed as ``shiftwise_mm.kernels``. ``runtime`` owns
``ti.init``; every other module holds the kernels of one operator.
"""
