"""Which pictures there are, and what is known of each.

samples.py    a picture and its label, in whatever form it was found
dataset.py    the forms in which data sets lie on disk
manifest.py   Ground Truth manifests
planted.py    defects planted into good parts, where nobody has one to show
"""
