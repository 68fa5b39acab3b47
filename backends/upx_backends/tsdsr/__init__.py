"""tsdsr: TSD-SR, one distilled step of Stable Diffusion 3, in torch and diffusers."""
