"""One stage of the study as a value: data, sampler, network, loss, validation and key."""
