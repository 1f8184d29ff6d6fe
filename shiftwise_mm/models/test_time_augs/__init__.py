"""Averages over augmented inputs."""
from .instance_tta import InstanceTTAModel

__all__ = ['InstanceTTAModel']
