"""What a quota that several processes share bears: killed processes, lost ledgers, and what it costs."""
