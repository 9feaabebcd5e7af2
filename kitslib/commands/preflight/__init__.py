"""What a study will need on this machine."""
