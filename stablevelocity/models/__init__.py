"""Networks: the SiT backbone, frozen image encoders, autoencoders; and their weight files."""
