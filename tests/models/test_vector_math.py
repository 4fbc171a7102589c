"""The functions that torch's vector library chooses kernels for are called once before a model runs."""

import runpy

import torch

from athlos.models import forward, vector_math


def test_importing_the_forward_pass_calls_each_function_on_one_number(monkeypatch):
    calls = []
    for name in vector_math.FUNCTIONS:
        monkeypatch.setattr(torch, name, lambda number, name=name: calls.append((name, number.dtype, number.numel())))
    runpy.run_path(forward.__file__)  # a copy: the module that other tests hold stays as it is
    assert {("cos", torch.float32, 1), ("sin", torch.float32, 1), ("exp", torch.float64, 1)} <= set(calls)
    assert len(calls) == 2 * len(vector_math.FUNCTIONS)
