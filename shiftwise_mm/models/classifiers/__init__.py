"""Image classification around a backbone and a head."""
from .image_classifier import ImageClassifier

__all__ = ['ImageClassifier']
