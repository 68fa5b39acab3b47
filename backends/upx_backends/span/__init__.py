"""span: SPAN networks in ncnn, on the CPU."""
