"""What Python has to do for mpo: statistics of a model's layers, for conversion in a metric."""
