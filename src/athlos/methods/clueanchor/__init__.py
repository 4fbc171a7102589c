"""ClueAnchor: explore three ways to reason about a question, prefer the best, and need no clue afterwards."""
