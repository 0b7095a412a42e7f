"""A real HTTP server that behaves like the providers: for the demo, the tests and the benchmarks."""
