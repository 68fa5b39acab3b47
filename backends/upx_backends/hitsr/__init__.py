"""hitsr: HiT-SIR, HiT-SNG and HiT-SRF in torch."""
