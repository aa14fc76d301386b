"""Training: what a simulator must offer, the curriculum that makes batches of it, and the loop.

`ppl_buffer.train` is the entry point. Importing this package needs NumPy alone; `loop` needs torch.
"""
