"""Layers, backbones, the classifier, TTA; importing registers them."""
from .backbones import *  # noqa: F401,F403
from .classifiers import *  # noqa: F401,F403
from .heads import *  # noqa: F401,F403
from .layers import *  # noqa: F401,F403
from .test_time_augs import *  # noqa: F401,F403
