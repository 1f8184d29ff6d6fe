"""The order in which detections are painted."""
from __future__ import annotations

__all__ = ['surest_last']


def surest_last(sample):
    """A data sample whose detections come by rising score.

    mmdet's visualizer paints them one after the other, names and scores too:
    where several lie at one place, the last one is what can be read.

    Args:
        sample (BaseDataElement): Of mmdet or mmseg; stays as it is.

    Returns:
        BaseDataElement: The same one if it has no scores.
    """
    found = sample.get('pred_instances')
    if found is None or 'scores' not in found:
        return sample
    painted = sample.new()
    painted.pred_instances = found[found.scores.argsort(stable=True)]
    return painted
