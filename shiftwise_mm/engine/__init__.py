"""What runs around a training: hooks and the demo."""
