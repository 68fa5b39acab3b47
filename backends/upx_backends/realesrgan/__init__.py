"""realesrgan: the networks of Real-ESRGAN in ncnn, on the CPU."""
