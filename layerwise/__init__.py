"""Train CNNs greedily, block by frozen block, and keep what every depth computes in one HDF5 file.

`layerwise` owns the networks, their training, the data sets and the run file (run.h5).
"""

__version__ = "0.1.0"
