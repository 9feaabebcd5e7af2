"""KiTS on disk and as cases: checks, defects, splits, the cache, and which sample comes next."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
