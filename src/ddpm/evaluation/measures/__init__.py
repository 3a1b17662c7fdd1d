"""Numbers from sets of features: pure functions, in float64, in memory that does not grow with the square of
how many there are.

Features are [N, D] of any floating type; they are taken to float64 some rows at a time, so that they may stay
in float32 or in a memory map. The result does not depend on their order, but for rounding and for what is
drawn or split by index.
"""
