"""What is fast and by how much: each module is run with `python -m benchmarks.<name>` and measures one thing.

`--quick` only shows that a benchmark works; its times mean nothing. `--record` appends rows to `results/<name>.csv`.
"""
