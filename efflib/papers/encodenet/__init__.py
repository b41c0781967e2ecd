"""EncodeNet: converting autoencoders."""
