"""
One organisation's quota, used by several processes: a ledger somewhere, and an engine in each that speaks with it.
"""
