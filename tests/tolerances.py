"""Named tolerances of comparisons in tests; no test holds a number of its own."""

FLOAT64 = 1e-6
"""Values of the specification are printed to six digits."""
EXACT = 1e-12
"""Two ways of computing the same number in float64: rounding alone."""
SOFTMAX_FLOAT32 = 1e-6
"""Models in float64 whose softmax transformers computes in float32: one rounding, 6e-8, a layer. Processors differ."""
FLOAT32 = 1e-5
"""Against an oracle that computes in float32."""
LOGITS_FLOAT32 = 1e-4
"""Logits of a real model, the same sums in two orders in float32."""
