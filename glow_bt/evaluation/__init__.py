"""What a run was worth: metrics, a quantstats tearsheet, and pictures of the model itself.

Import from the submodule that you need; quantstats loads with a tearsheet only, matplotlib
with a picture only.
"""
