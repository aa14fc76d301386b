"""Training: draws of a simulator, batches of them, the loss, and the loop; `ppl_buffer.train` is the entry point.

Importing this package needs NumPy alone; `loop`, `loss` and what stands between them and the weights need torch.
"""
