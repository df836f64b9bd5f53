"""The figures, each with its caption. matplotlib is loaded here, whatever backend the reader's MPLBACKEND names."""

import os
import sys
from contextlib import suppress

from layerwise.errors import UserError


def _load_matplotlib() -> None:
    """Import matplotlib; a backend that is not installed stays unused, since figures need none.

    A notebook's subprocesses inherit a backend that their own environment may lack, and matplotlib then refuses to be
    imported.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except (ValueError, OSError) as error:
        words = " ".join(str(error).split())
        raise UserError(
            f"matplotlib cannot be loaded ({words}). Mend or remove the matplotlibrc or MPLCONFIGDIR that it reads."
        ) from None
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = named


if "matplotlib" not in sys.modules:
    _load_matplotlib()
