"""START: a model teaches itself to answer with citations."""
