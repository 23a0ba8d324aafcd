"""Text in, int32 out. No jax here: reader processes must not take the accelerator."""
