"""The compiled products against PyTorch in float64; a row's result does not depend on its neighbours."""

import pytest
import torch
from tests.generation.cpu.test_fused_attention import needs_compiler
from tests.tolerances import LOGITS_FLOAT32

from athlos.generation.cpu.decoder_kernel import product

ROWS = [1, 2, 3, 4, 5, 16, 17, 33, 70]
"""Fewer than a block of rows, whole blocks, and more than four tiles of them."""


def matrices(rows: int, *, outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows)
    return torch.randn(rows, inputs, generator=draw), torch.randn(outputs, inputs, generator=draw)


@needs_compiler
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 16), (37, 48), (64, 64), (259, 96)])
def test_a_product_is_that_of_float64(rows: int, outputs: int, inputs: int) -> None:
    rows_BI, weight_OI = matrices(rows, outputs=outputs, inputs=inputs)
    expected = rows_BI.double() @ weight_OI.double().T
    torch.testing.assert_close(product(rows_BI, weight_OI).double(), expected, atol=LOGITS_FLOAT32, rtol=0)


@needs_compiler
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 16), (37, 48), (64, 64), (259, 96)])
def test_a_product_in_16_bit_sums_in_float32(rows: int, outputs: int, inputs: int) -> None:
    """Rows of numbers that bfloat16 holds, so that it is the same on processors with and without tiles."""
    rows_BI, weight_OI = (one.bfloat16() for one in matrices(rows, outputs=outputs, inputs=inputs))
    expected = rows_BI.double() @ weight_OI.double().T
    torch.testing.assert_close(product(rows_BI.float(), weight_OI).double(), expected, atol=LOGITS_FLOAT32, rtol=0)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_is_the_same_to_the_last_bit(dtype: torch.dtype) -> None:
    rows_BI, weight_OI = matrices(70, outputs=100, inputs=96)
    together = product(rows_BI, weight_OI.to(dtype))
    for count in ROWS:
        assert torch.equal(product(rows_BI[:count], weight_OI.to(dtype)), together[:count])


@needs_compiler
def test_pytorch_finds_its_own_tiles_again() -> None:
    rows, weight = (one.bfloat16() for one in matrices(64, outputs=64, inputs=64))
    expected = rows @ weight
    product(rows.float(), weight)
    assert torch.equal(rows @ weight, expected)
