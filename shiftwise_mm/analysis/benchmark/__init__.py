"""Times and memory, measured side by side."""
