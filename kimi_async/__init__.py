"""
The async, typed, fast Python client for the Kimi (Moonshot AI) API.
"""
