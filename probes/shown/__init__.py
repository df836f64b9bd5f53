"""Images that a run has not seen, shown to its frozen network and to the probes fitted on the run."""
