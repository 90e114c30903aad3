"""Networks: the SiT backbone, frozen image encoders, autoencoders, the MLP of the toy experiment."""
