"""
Goodput under limits: this package's limiter beside what else one would use, on servers that behave like Kimi.
"""
