"""Arrays and tables in, matplotlib axes out; one palette for the whole study."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
