"""KMKC: teaching by what a model knows of a question, then aligning its certainty with being right."""
