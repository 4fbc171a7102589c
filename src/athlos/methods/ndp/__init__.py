"""NDP: n-gram distributions of the training data in place of one-hot targets."""
