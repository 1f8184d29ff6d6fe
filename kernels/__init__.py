"""Taichi kernels: no autograd, no modules, nothing imported before use.

The folder is installed as ``shiftwise_mm.kernels``. ``runtime`` owns
``ti.init``, ``capability`` knows the CPU; other modules hold the kernels of
one operator, or what several are made of.
"""
