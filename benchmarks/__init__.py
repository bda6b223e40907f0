"""
How `kimi_async` stands against what one would use instead, measured on your machine.

`python -m benchmarks --quick` runs every installed client through every workload. `benchmarks/README.md` says what is
measured and why it can be believed.
"""
