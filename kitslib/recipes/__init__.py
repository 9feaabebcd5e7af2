"""One stage of the study as a value: data, sampler, network, loss, validation and key."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
