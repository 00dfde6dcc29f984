"""What a picture looks like to the scorers.

network.py    the plug for a frozen network
backbone.py   EfficientNet-Lite0, the default
plug.py       another network, by path
view.py       from its feature maps to local vectors and one of the whole
gather.py     every picture read once and described
cache.py      features kept on disk while a training runs
"""
