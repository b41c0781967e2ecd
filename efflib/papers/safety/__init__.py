"""Safety-guided self compression: printed numbers, references, the drift of the optimiser, audit."""
