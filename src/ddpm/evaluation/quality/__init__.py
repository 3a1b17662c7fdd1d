"""How good samples are: measures of them by the features of an extractor."""
