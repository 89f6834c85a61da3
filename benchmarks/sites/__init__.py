"""The same endpoint in each framework, in the variants that the benchmark `endpoints` compares."""
