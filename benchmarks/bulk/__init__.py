"""
Benchmarks of bulk work: uploads, map, joining results, and being killed. `python -m benchmarks.bulk`.
"""
